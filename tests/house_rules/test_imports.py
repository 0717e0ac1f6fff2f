"""Imports point one way, and each package that is imported is declared."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tests.house_rules.graph import LAYERS, circles, part, wrong_imports
from tests.house_rules.source import ROOT, imports, library, listed, parse

PACKAGES = {
    "PIL": "pillow",
    "ale_py": "ale-py",
    "cv2": "opencv-python-headless",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "mlflow": "mlflow-skinny",
    "pyspiel": "open_spiel",
    "stable_retro": "stable-retro",
}
"""Import name -> package, where they differ."""


def test_imports_point_one_way():
    assert not (wrong := wrong_imports(library())), listed(wrong)


def test_every_package_has_its_layer():
    assert {part(module.name) for module in library()} <= {name for layer in LAYERS for name in layer}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("offbeat.algorithms.x", "from offbeat.networks import lstm"),
        ("offbeat.algorithms.x", "from ..networks import lstm"),
        ("offbeat.algorithms.x", "from offbeat.types import ArraySpec"),
        ("offbeat.agents.x", "def f():\n    import offbeat.runtime.learner"),
        ("offbeat.envs.x", "from offbeat import replay"),
        ("offbeat.envs.x", "from offbeat.algorithms import returns"),
        ("offbeat.replay.x", "from offbeat.agents.base import Agent"),
        ("offbeat.storage.x", "from offbeat.replay.streams import StreamStore"),
        ("offbeat.runtime.x", "from offbeat.config.run_config import RunConfig"),
        ("offbeat.runtime.x", "if TYPE_CHECKING:\n    from offbeat.config.run_config import RunConfig"),
        ("offbeat.config.x", "from offbeat.run.metrics import MetricLogger"),
        ("offbeat.run.x", "from offbeat.report.plot import plot_run"),
        ("offbeat.scoring.x", "from offbeat.report.pictures import Camera"),
        ("offbeat.run.train", "from offbeat.cli import main"),
    ],
)
def test_an_import_the_wrong_way_is_found(name, text):
    assert len(wrong_imports((parse(name, f"{name}.py", text),))) == 1


def test_no_files_import_each_other_in_a_circle():
    assert not (found := circles(library())), found


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
    ours_or_nowhere = {"offbeat", "ray", "deepmind_lab"}  # no package index has the last one
    return {PACKAGES.get(name, name) for name in names - set(sys.stdlib_module_names) - ours_or_nowhere}


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
blocked |= {"pyspiel", "open_spiel", "wandb", "mlflow", "vizdoom", "deepmind_lab", "popgym", "pyboy", "stable_retro"}
blocked |= {"rtgym"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
for name in "offbeat config.run_config run.train cli scoring.evaluate runtime.learner".split():
    importlib.import_module(name if name == "offbeat" else f"offbeat.{name}")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
