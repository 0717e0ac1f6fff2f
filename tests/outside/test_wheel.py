"""The wheel that users install, not the tree that developers edit: it holds all it needs and trains from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house_rules.source import ROOT

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree, so that nothing is left there."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "offbeat", source / "offbeat", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source)]
    subprocess.run([*PIP, *build], check=True, capture_output=True)
    (made,) = folder.glob("offbeat-*.whl")
    return made


def test_it_holds_every_module_and_preset_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    kinds = ("py", "toml", "typed", "css", "js", "asm", "gb")
    here = {path for kind in kinds for path in (ROOT / "offbeat").rglob(f"*.{kind}")}
    assert names == {path.relative_to(ROOT).as_posix() for path in here}


def test_it_trains_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", str(installed), str(wheel)], check=True)
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def run(*arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    assert str(installed) in run("-c", "import offbeat; print(offbeat.__file__)")
    assert "debug" in run("-m", "offbeat", "presets")
    said = run("-m", "offbeat", "train", "debug", "--total-frames", "400", "--out", "run")
    assert "finished: " in said
    assert (elsewhere / "run" / "checkpoints").is_dir()
    assert "finished: " in run("-m", "offbeat", "resume", "run", "--total-frames", "800")
