"""What docs/adding_an_algorithm.md shows, as files: a package that is built and installed as that page says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.house_rules.source import ROOT

DOCUMENT = ROOT / "docs" / "adding_an_algorithm.md"
AGENTS = ("reinforce", "munchausen")


def shown(name: str) -> str:
    """The text of the file that the page introduces by its name."""
    (text,) = re.findall(rf"`{re.escape(name)}`:\n\n```\w+\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    return str(text)


def snippets() -> list[str]:
    """The pieces of Python in the section about looking inside, in order."""
    section = DOCUMENT.read_text().partition("\n## 5. ")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)


def module(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One of the agents as a module, without the package."""
    file = folder / f"{name}.py"
    file.write_text(shown(file.name))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, made)  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


class Project:
    """The folder ``my-agents`` as the page draws it, built and installed beside offbeat."""

    def __init__(self, folder: Path) -> None:
        self.home, self._target = folder / "my-agents", folder / "installed"
        (self.home / "my_agents").mkdir(parents=True)
        (self.home / "my_agents" / "__init__.py").touch()
        (self.home / "pyproject.toml").write_text(shown("pyproject.toml"))
        for name in AGENTS:
            (self.home / "my_agents" / f"{name}.py").write_text(shown(f"{name}.py"))
            (self.home / f"{name}.toml").write_text(shown(f"{name}.toml"))
        options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(self._target)]
        self.python("-m", "pip", "install", *options, str(self.home))

    def python(self, *arguments: str, succeeds: bool = True) -> str:
        """Run Python in the folder with the package installed; what it printed."""
        paths = [str(self._target), str(ROOT)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.home, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is succeeds, (done.stdout + done.stderr)[-3000:]
        return done.stdout + done.stderr

    def offbeat(self, *arguments: str) -> str:
        """Run a command."""
        return self.python("-m", "offbeat", *arguments)
