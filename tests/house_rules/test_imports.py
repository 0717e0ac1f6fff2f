"""Imports point one way, and each package that is imported is declared."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tests.house_rules.source import ROOT, Module, imports, library, listed, parse

BASE = {"types", "errors"}
"""Modules that stand below all others and import nothing but each other."""
ROLES = {
    "algorithms", "networks", "agents", "replay", "envs", "acting", "checkpoint", "checkpoint_reading", "metrics",
    "episodes", "scores", "runlog", "terminal",
}  # fmt: skip
"""What the roles are made of."""
ABOVE = {"runtime", "config", "train", "load", "evaluate", "cli", "commands"}
"""What stands above the roles' parts."""
MAY_IMPORT = {
    "types": BASE,
    "errors": BASE,
    "algorithms": {"algorithms"},
    "networks": BASE | {"algorithms", "networks"},
    "agents": BASE | {"algorithms", "networks", "agents"},
    "replay": BASE | {"algorithms", "replay"},
    "envs": BASE | {"envs"},
    "acting": BASE | {"acting", "agents", "algorithms", "envs", "networks", "replay"},
    "checkpoint": BASE | {"checkpoint_reading"},
    "checkpoint_reading": BASE,
    "episodes": BASE | ROLES,
    "scores": BASE,
    "runlog": BASE,
    "terminal": BASE,
    "runtime": BASE | ROLES | {"runtime"},
}
"""Package or module -> what it may import of offbeat. What is not listed here stands above all of these."""
TOP = {"cli", "commands", "__main__"}
"""The command line: nothing else imports it."""
PACKAGES = {
    "PIL": "pillow",
    "ale_py": "ale-py",
    "cv2": "opencv-python-headless",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "pyspiel": "open_spiel",
}
"""Import name -> package, where they differ."""


def part(name: str) -> str:
    """``offbeat.replay.streams`` -> ``replay``; the package itself -> ''."""
    return name.split(".")[1] if "." in name else ""


def wrong_imports(modules: tuple[Module, ...]) -> list[str]:
    """Imports of offbeat by offbeat that point the wrong way."""
    wrong = []
    for module in modules:
        source = part(module.name)
        for line, name in imports(module):
            if not name.startswith("offbeat."):
                continue
            target = part(name)
            allowed = MAY_IMPORT.get(source)
            if source == "runtime" and target == "config" and (line, name) not in imports(module, types_too=False):
                continue  # the type of the whole configuration, in annotations only
            if allowed is not None:
                forbidden = target not in allowed
            else:
                forbidden = target in TOP - {source} and source not in TOP
                forbidden |= source in ROLES and target in ABOVE
            if forbidden:
                wrong.append(f"{module.path}:{line}: {source} imports {target} ({name})")
    return wrong


def test_imports_point_one_way():
    assert not (wrong := wrong_imports(library())), listed(wrong)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("offbeat.algorithms.x", "from offbeat.networks import lstm"),
        ("offbeat.algorithms.x", "from ..networks import lstm"),
        ("offbeat.agents.x", "def f():\n    import offbeat.runtime.learner"),
        ("offbeat.envs.x", "from offbeat import replay"),
        ("offbeat.replay.x", "from offbeat.agents.base import Agent"),
        ("offbeat.runtime.x", "from offbeat.config import RunConfig"),
        ("offbeat.metrics", "from offbeat.runtime.ports import MetricSink"),
        ("offbeat.train", "from offbeat.cli import main"),
    ],
)
def test_an_import_the_wrong_way_is_found(name, text):
    assert len(wrong_imports((parse(name, f"{name}.py", text),))) == 1


def circles(modules: tuple[Module, ...]) -> list[list[str]]:
    """Files that import each other in a circle, also for types only, or only when they are called."""
    names = {module.name for module in modules}
    graph: dict[str, set[str]] = {}
    for module in modules:
        targets = {name if name in names else name.rpartition(".")[0] for _, name in imports(module)}
        graph[module.name] = (targets & names) - {module.name}
    reach = {name: _reachable(graph, name) for name in graph}
    found = {frozenset({other for other in reach[name] if name in reach[other]}) for name in graph}
    return sorted(sorted(circle) for circle in found if circle)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def test_no_files_import_each_other_in_a_circle():
    packages = {module.name for module in library() if module.path.endswith("__init__.py")}
    assert not (found := circles(tuple(module for module in library() if module.name not in packages))), found


def test_a_circle_is_found_also_one_of_types_only():
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from offbeat.b import B"
    there = parse("offbeat.a", "a.py", text), parse("offbeat.b", "b.py", "def f():\n    from offbeat import c")
    assert circles((*there, parse("offbeat.c", "c.py", ""))) == []
    assert circles((*there, parse("offbeat.c", "c.py", "import offbeat.a"))) == [
        ["offbeat.a", "offbeat.b", "offbeat.c"]
    ]


def test_only_the_ray_engine_imports_ray():
    users = [module.path for module in library() if any(name.split(".")[0] == "ray" for _, name in imports(module))]
    assert set(users) <= {"offbeat/runtime/engines/ray.py"}


def third_party() -> set[str]:
    """Packages that the library imports."""
    names = {name.split(".")[0] for module in library() for _, name in imports(module)}
    # torch's TensorBoard writer is a thin layer over the package of that name
    names |= {"tensorboard"} if any("torch.utils.tensorboard" in module.text for module in library()) else set()
    return {PACKAGES.get(name, name) for name in names - set(sys.stdlib_module_names) - {"offbeat", "ray"}}


def declared() -> tuple[set[str], set[str]]:
    """(core dependencies, dependencies of extras that are for users) in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def bare(requirement: str) -> str:
        for end in "[<>=!~ ;":
            requirement = requirement.split(end)[0]
        return requirement

    extras = {bare(item) for name, items in project["optional-dependencies"].items() if name != "dev" for item in items}
    return {bare(item) for item in project["dependencies"]}, extras


def test_every_package_that_is_imported_is_declared():
    core, extras = declared()
    assert sorted(third_party() - core - extras) == []


def test_every_core_dependency_is_imported():
    assert sorted(declared()[0] - third_party()) == []


def test_the_library_imports_without_any_extra():
    program = """
import importlib, sys
blocked = {"ale_py", "envpool", "minatar", "cv2", "imageio", "imageio_ffmpeg", "ray", "mujoco", "Box2D", "pygame"}
blocked |= {"pyspiel", "open_spiel"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
for name in "offbeat config train cli evaluate runtime.learner".split():
    importlib.import_module(name if name == "offbeat" else f"offbeat.{name}")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
