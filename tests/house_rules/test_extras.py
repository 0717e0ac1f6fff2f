"""``make test-extras`` has every extra, and finds the tests that are left out without them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from offbeat.envs.procgen import QT
from tests.house_rules.source import ROOT


@pytest.fixture
def extras(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that runs them."""
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    spec = importlib.util.spec_from_file_location("extras", ROOT / ".ci" / "extras.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_extras_are_installed_for_it(extras: ModuleType) -> None:
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "$(EXTRAS)/bin/python -m" in line]
    named = re.search(r"'\.\[(.*)\]'", line)
    assert named is not None
    installed = {str(one) for name in named[1].split(",") for one in extras.direct(name)}
    assert installed >= {str(one) for name in extras.extras() for one in extras.direct(name)}


def test_make_installs_what_procgen_says_that_it_needs() -> None:
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("QT := ")]
    packages = line.removeprefix("QT := ")
    assert QT.endswith(f" {packages}")
    for page in ("README.md", "docs/environments.md"):
        assert QT in (ROOT / page).read_text()


def test_readme_names_all_extras(extras: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in extras.extras() if f"`{name}`" not in readme] == []


def test_test_files_are_found_by_what_they_want(extras: ModuleType, tmp_path: Path) -> None:
    def found(*packages: str) -> set[str]:
        return {str(file.relative_to(ROOT / "tests")) for file in extras.files(set(packages))}

    assert found("wandb") == found("mlflow") == {"run/sinks/test_sinks.py"}
    assert "run/test_export_onnx.py" in found("onnxscript") and "house_rules/test_documents.py" in found("onnxruntime")
    assert found("envpool") >= {"envs/test_atari_envpool.py", "envs/test_procgen.py"}
    assert "envs/test_vizdoom.py" in found("vizdoom") and "envs/test_popgym.py" in found("popgym")
    assert "envs/gameboy/test_world.py" in found("pyboy") & found("stable_retro")
    assert found("Box2D") & found("mujoco") >= {"envs/test_box2d_mujoco.py"}
    file = tmp_path / "test_x.py"
    file.write_text("import a.b\nfrom c.d import e\nfind_spec('f.g')\npytest.importorskip('h', reason='i')\nprint('j')")
    assert extras.wanted_by(file) == {"a", "c", "f", "h"}
    file.write_text("for package in ('k', 'l'):\n    pytest.importorskip(package)")
    assert extras.wanted_by(file) == {"k", "l"}


def test_what_an_extra_brings_is_told_from_what_all_have(extras: ModuleType) -> None:
    """``gymnasium[box2d]`` brings Box2D; what is not installed cannot say what it is imported as."""
    assert {"ale-py", "pytest", "open-spiel"} <= extras.brought(["dev"])
    assert "box2d" in extras.brought(["box2d"]) and "box2d" not in extras.brought(["dev"])
    assert not {"ale_py", "numpy", "pytest", "gymnasium", "packaging", "torch"} & extras.modules()


def test_what_is_left_out_all_the_same_is_said(extras: ModuleType) -> None:
    class Report:
        outcome, longrepr = "skipped", ("file", 3, "Skipped: could not import 'x': no")

    left_out = extras.LeftOut()
    left_out.pytest_runtest_logreport(Report())
    assert left_out.reasons == {"could not import 'x': no"}
