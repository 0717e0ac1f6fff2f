"""Run the tests that need a package which only extras beside ``dev`` bring; the others leave them out.

``python extras.py [arguments of pytest]``, in an environment with all extras: ``make test-extras``. A test file is
taken if it imports such a package, or asks for one by ``pytest.importorskip`` or ``find_spec``: nobody keeps a list.
What is left out all the same, since a package does not import, is an error. Procgen needs libraries of Qt beside
EnvPool, which are no packages of Python: make installs them where it may; where they lack, the line that says how to
install them is shown, no error.
"""

from __future__ import annotations

import ast
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name
from versions import PROJECT, direct, installed, needed

ROOT = PROJECT.parent
ASKS = ("importorskip", "find_spec")
"""Functions whose first argument names a package."""


def extras() -> list[str]:
    """Names of all extras."""
    return sorted(tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"])


def brought(names: Iterable[str]) -> set[str]:
    """Distributions that offbeat with these extras asks for, and those that it names by an extra of a distribution's
    own (``gymnasium[box2d]``).
    """
    found = set()
    for requirement in (one for name in names for one in direct(name)):
        own = canonicalize_name(requirement.name)
        found.add(own)
        if requirement.extras:
            named = needed(metadata.distribution(own).requires or [], requirement.extras)
            found |= {canonicalize_name(one.name) for one in named}
    return found


def modules() -> set[str]:
    """Names that are imported of what only extras beside ``dev`` bring."""
    with_dev = {line.split("==")[0] for line in installed()}
    only = brought(extras()) - with_dev
    return {
        name
        for name, owners in metadata.packages_distributions().items()
        if only & {canonicalize_name(owner) for owner in owners}
    }


def wanted_by(file: Path) -> set[str]:
    """Names of the packages that a test file imports or asks for; all of its words where it asks for a variable's."""
    tree = ast.parse(file.read_text())
    names = [name for node in ast.walk(tree) for name in _named(node)]
    return {name.split(".")[0] for name in (_texts(tree) if None in names else names) if name}


def _named(node: ast.AST) -> Iterator[str | None]:
    """None: the name is not written there."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ASKS:
            yield from _texts(node.args[0]) or [None]


def _texts(node: ast.AST) -> list[str]:
    return [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def files(packages: set[str]) -> list[Path]:
    """Test files that want any of ``packages``."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [file for file in found if wanted_by(file) & packages]


class LeftOut:
    """Notes which tests were skipped, and why."""

    def __init__(self) -> None:
        self.reasons: set[str] = set()

    def pytest_runtest_logreport(self, report: object) -> None:
        """Of a test."""
        self._note(report)

    def pytest_collectreport(self, report: object) -> None:
        """Of a file."""
        self._note(report)

    def _note(self, report: object) -> None:
        if getattr(report, "outcome", "") == "skipped" and isinstance(told := getattr(report, "longrepr", None), tuple):
            self.reasons.add(str(told[2]).removeprefix("Skipped: "))


def main(arguments: list[str]) -> int:
    """The exit code."""
    import pytest

    packages = modules()
    chosen = [str(file.relative_to(ROOT)) for file in files(packages)]
    print(f"packages of extras: {', '.join(sorted(packages))}\n{len(chosen)} test files want them", flush=True)
    os.chdir(ROOT)
    left_out = LeftOut()
    code = int(pytest.main([*arguments, *chosen], plugins=[left_out]))
    missing = sorted(reason for reason in left_out.reasons if reason.startswith("could not import"))
    for reason in missing:
        print(f"left out although all extras are to be there: {reason}")
    for reason in sorted(reason for reason in left_out.reasons if "apt-get" in reason):
        print(f"left out, as the system lacks something: {reason}")
    return code or bool(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
