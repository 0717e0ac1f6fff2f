"""Files and functions stay small enough to be held in the head."""

from __future__ import annotations

import ast
import statistics

from tests.house_rules.source import Module, library, listed, parse

FILE_LINES = 400
MEDIAN_LINES = 200
FUNCTION_LINES = 50
ROLE_LINES = 100


def long_functions(module: Module) -> list[str]:
    """Functions over the limit; a docstring does not count, the loop of a role (``run_*``) may be longer."""
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or 0) - node.lineno + 1
        if ast.get_docstring(node) is not None:
            lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
        limit = ROLE_LINES if node.name.startswith("run_") else FUNCTION_LINES
        if lines > limit:
            found.append(f"{module.path}:{node.lineno}: {node.name} has {lines} lines, at most {limit}")
    return found


def test_files_are_short(capsys):
    sizes = {module.path: module.text.count("\n") for module in library()}
    long = [f"{path}: {lines} lines, at most {FILE_LINES}" for path, lines in sizes.items() if lines > FILE_LINES]
    median = statistics.median(lines for path, lines in sizes.items() if not path.endswith("__init__.py"))
    with capsys.disabled():
        print(f" [median {median:.0f} lines] ", end="")
    assert not long, listed(long)
    assert median <= MEDIAN_LINES


def test_functions_are_short():
    found = [line for module in library() for line in long_functions(module)]
    assert not found, listed(found)


def test_a_long_function_is_found():
    body = "\n    x = 1" * 60
    assert len(long_functions(parse("m", "m.py", f"def f():{body}"))) == 1
    assert long_functions(parse("m", "m.py", f"def run_actor():{body}")) == []
    assert long_functions(parse("m", "m.py", 'def f():\n    """' + "\n" * 60 + '    """\n    return 1')) == []
