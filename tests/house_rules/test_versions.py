"""The versions that a fresh machine gets: one for each dependency, as pyproject.toml allows, and they are used."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house_rules.source import ROOT


@pytest.fixture(scope="module")
def versions() -> ModuleType:
    """The script that says them."""
    spec = importlib.util.spec_from_file_location("versions", ROOT / ".ci" / "versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pinned(lines: list[str]) -> dict[str, str]:
    """Name -> version."""
    found = dict(line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in found.items()}


def missing(direct: list[Requirement], pins: dict[str, str]) -> list[str]:
    """Requirements that no pin satisfies."""
    return [str(r) for r in direct if not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))]


def test_every_dependency_has_a_version_that_was_tested(versions: ModuleType) -> None:
    pins = pinned((ROOT / "constraints.txt").read_text().splitlines())
    assert missing(versions.direct(), pins) == []
    assert missing([Requirement("numpy>=99")], pins) == ["numpy>=99"]
    assert [name for name in pins if name.startswith(("torch", "nvidia", "triton", "offbeat"))] == []


def test_the_emulators_have_one_too_and_keep_it(versions: ModuleType) -> None:
    pins = pinned((ROOT / "constraints.txt").read_text().splitlines())
    assert missing(versions.direct("gameboy"), pins) == []
    kept = pinned(versions.others())
    assert kept.keys() >= {"pyboy", "stable-retro"} and kept.items() <= pins.items()
    assert not kept.keys() & {canonicalize_name(r.name) for r in versions.direct()}, "those are asked anew"


def test_the_lowest_versions_are_those_that_pyproject_names(versions: ModuleType) -> None:
    pins = pinned(versions.lowest())
    assert missing(versions.direct(), pins) == []
    assert pins.keys() == {canonicalize_name(r.name) for r in versions.direct()}
    assert "torch" not in pins
    names = {canonicalize_name(r.name) for r in versions.direct()}
    assert {"numpy", "ale-py", "open-spiel", "pytest"} <= names, "the core, extras that others name, and dev itself"


def test_what_installs_takes_the_tested_versions() -> None:
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    installs = [line for line in makefile.splitlines() if "--editable" in line]
    lowest = [line for line in installs if "pip install --quiet --constraint $(LOWEST)/lowest.txt" in line]
    tested = [line for line in installs if "-m $(PIP_INSTALL) --editable" in line or "$(RUN) $(PIP_INSTALL)" in line]
    assert len(lowest) == 1 and len(tested) == 3 and len(installs) == 4, "train, test, test-extras"
    assert "$(RUN) pip install" not in makefile
    assert "pip install --no-cache-dir --constraint constraints.txt" in dockerfile
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in dockerfile.splitlines() if line.startswith("COPY") for name in line.split()[1:-1]}
    assert copied == let_in
