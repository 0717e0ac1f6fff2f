"""Versions for pip: those that the tests pass with, and the lowest that pyproject.toml allows.

``python versions.py installed`` prints a constraint for each package that offbeat with its extra ``dev`` has brought
into the environment of that python, and those of constraints.txt for what only other extras name, as they are;
``python versions.py lowest`` one for each dependency that pyproject.toml names.
Neither names torch or what only torch brings: which build of it is the right one differs from machine to machine.
``make constraints`` and ``make test-lowest`` call it; the package ``packaging`` comes with pytest.
"""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
CONSTRAINTS = PROJECT.with_name("constraints.txt")
EXTRA = "dev"
LEFT_OUT = {"torch", "offbeat"}
"""Packages that get no constraint."""


def direct(extra: str = EXTRA) -> list[Requirement]:
    """What offbeat and one of its extras ask for, with the extras that this one names; torch aside."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    waiting = [*project["dependencies"], f"offbeat[{extra}]"]
    found = []
    while waiting:
        requirement = Requirement(waiting.pop(0))
        if requirement.name == "offbeat":
            for name in sorted(requirement.extras):
                waiting += project["optional-dependencies"][name]
        elif requirement.name != "torch":
            found.append(requirement)
    return found


def lowest() -> list[str]:
    """The lowest version that each direct dependency may have; it has to be there, word by word."""
    pins = []
    for requirement in direct():
        floors = [item for item in requirement.specifier if item.operator in (">=", "==")]
        if len(floors) != 1:
            raise SystemExit(f"pyproject.toml: {requirement} has no lowest version; write {requirement.name}>=...")
        pins.append(f"{requirement.name}=={re.sub(r'[*]$', '0', floors[0].version)}")
    return pins


def installed() -> list[str]:
    """What is installed of all that the direct dependencies need, and theirs in turn."""
    extras: dict[str, set[str]] = {}
    waiting: list[Requirement] = direct()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = {"", *requirement.extras}
        if name in LEFT_OUT or wanted <= extras.get(name, set()):
            continue
        extras.setdefault(name, set()).update(wanted)
        waiting += needed(metadata.distribution(name).requires or [], extras[name])
    tested = (
        f"# The tests passed with these on Python {platform.python_version()} and torch {metadata.version('torch')};"
    )
    pins = [f"{name}=={metadata.version(name)}" for name in sorted(extras)]
    return [tested, "# written by `make constraints`. Which torch is installed is left to pyproject.toml.", *pins]


def others() -> list[str]:
    """The constraints that constraints.txt has for what extras beside ``dev`` ask for: written by hand, with the
    versions that ``make test-extras`` passed with.
    """
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    named = {canonicalize_name(one.name) for extra in extras for one in direct(extra)}
    only = named - {canonicalize_name(one.name) for one in direct()}
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    return [line for line in lines if canonicalize_name(line.partition("==")[0]) in only]


def needed(requirements: Iterable[str], extras: Iterable[str]) -> list[Requirement]:
    """Those of a package's requirements that hold here, with these of its extras."""
    parsed = [Requirement(text) for text in requirements]
    return [r for r in parsed if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)]


if __name__ == "__main__":
    print("\n".join({"installed": lambda: [*installed(), *others()], "lowest": lowest}[sys.argv[1]]()))
