"""Files and functions stay small enough to be held in the head."""

from __future__ import annotations

import statistics

from tests.house_rules.source import Module, library, listed, parse
from tests.house_rules.structure import BESIDE, beside, functions, sizes

FILE_LINES = 400
MEDIAN_LINES = 200
FUNCTION_LINES = 50
ROLE_LINES = 100


def long_functions(module: Module) -> list[str]:
    """Functions over the limit; a docstring does not count, the loop of a role (``run_*``) may be longer."""
    found = []
    for lines, name in functions(module):
        limit = ROLE_LINES if name.rpartition(" ")[2].startswith("run_") else FUNCTION_LINES
        if lines > limit:
            found.append(f"{name} has {lines} lines, at most {limit}")
    return found


def test_few_modules_lie_beside_the_folders():
    assert len(beside()) <= BESIDE, beside()


def test_files_are_short(capsys):
    lines = sizes()
    long = [f"{path}: {count} lines, at most {FILE_LINES}" for path, count in lines.items() if count > FILE_LINES]
    median = statistics.median(lines.values())
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
