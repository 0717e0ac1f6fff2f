"""Prints what the structure comes to, beside what it may: ``make structure``.

The files on the way from the command line to the gradient are taken from the stacks of two small runs.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

from tests.house_rules.graph import LAYERS, circles, wrong_imports
from tests.house_rules.source import ROOT, Module, library

BESIDE = 10
"""Modules that may lie beside the folders."""


def beside() -> list[str]:
    """Modules that lie beside the folders."""
    return sorted(path.name for path in (ROOT / "offbeat").glob("*.py"))


def functions(module: Module) -> list[tuple[int, str]]:
    """(lines, name) of each function, its docstring not counted."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            found.append((lines, f"{module.path}:{node.lineno} {node.name}"))
    return found


def sizes() -> dict[str, int]:
    """File -> lines, of all but the empty ones that make packages."""
    return {module.path: module.text.count("\n") for module in library() if not module.path.endswith("__init__.py")}


def report() -> str:
    """Everything but the reading path, as text."""
    lines, modules = sizes(), library()
    longest = sorted(lines.items(), key=lambda item: -item[1])[:3]
    largest = sorted((function for module in modules for function in functions(module)), reverse=True)[:3]
    folders: dict[str, int] = {}
    for path in lines:
        folders[path.split("/")[1]] = folders.get(path.split("/")[1], 0) + lines[path]
    packages = {name: count for name, count in folders.items() if not name.endswith(".py")}
    middle = statistics.median(lines.values())
    return "\n".join([
        f"modules beside folders  {len(beside())} (at most {BESIDE}): {', '.join(beside())}",
        f"circles of imports      {len(circles(modules))} (none)",
        f"imports against layers  {len(wrong_imports(modules))} (none) in {len(LAYERS)} layers",
        f"files                   {len(lines)}, {sum(lines.values()):,} lines; median {middle:.0f}",
        f"longest files           {', '.join(f'{path} {count}' for path, count in longest)} (at most 400)",
        f"longest functions       {', '.join(f'{name} {count}' for count, name in largest)} (50, loops of roles 100)",
        f"lines by folder         {', '.join(f'{name} {count:,}' for name, count in sorted(packages.items()))}",
    ])  # fmt: skip


def main() -> int:
    """Print the report, then measure and print the reading path."""
    print(report(), flush=True)
    test = Path("tests") / "house_rules" / "test_reading_path.py"
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-k", "gradient", str(test)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    for line in said.stdout.splitlines():
        if (at := line.find("to the gradient")) >= 0:
            print(line[at:])
    return said.returncode


if __name__ == "__main__":
    sys.exit(main())
