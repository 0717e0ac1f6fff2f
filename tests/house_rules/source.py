"""The library's source as syntax trees, for the rules to walk over."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str  # dotted
    path: str  # relative to the repository
    text: str
    tree: ast.Module


def parse(name: str, path: str, text: str) -> Module:
    """A module from its text."""
    return Module(name, path, text, ast.parse(text))


@functools.cache
def library() -> tuple[Module, ...]:
    """Every module of offbeat."""
    modules = []
    for file in sorted((ROOT / "offbeat").rglob("*.py")):
        path = file.relative_to(ROOT)
        parts = path.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(parse(name, str(path), file.read_text()))
    return tuple(modules)


def imports(module: Module, types_too: bool = True) -> list[tuple[int, str]]:
    """(line, dotted name) of each import, wherever in the file it stands; ``from a import b`` gives ``a.b``.

    ``types_too=False`` leaves out what stands under ``if TYPE_CHECKING``.
    """
    found = []
    skipped: set[ast.AST] = set()
    for node in ast.walk(module.tree):
        if not types_too and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            skipped.update(node.body)
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.name.split(".")
                if not module.path.endswith("__init__.py"):
                    package = package[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def listed(violations: list[str]) -> str:
    """The violations, one per line, for the message of an assertion."""
    return "\n" + "\n".join(violations)
