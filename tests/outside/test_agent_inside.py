"""An agent added inside a copy of the repository: nothing but documents that are made from the source is edited."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house_rules.source import ROOT
from tests.outside.test_outside import COMMON, DRAWN, LINEAR_Q

COPIED = [name for name in os.listdir(ROOT) if name in ("offbeat", "tests", "docs", "campaigns", ".ci")]
COPIED += [path.name for path in ROOT.iterdir() if path.is_file()]
MADE = {"docs/options.md", "docs/preset_list.md"}
TEST = '''"""It is tested like every other."""

from offbeat.agents import linear_q


def test_it_has_options():
    assert linear_q.Config().epsilon == 0.2
'''
RULES = (
    "tests/house_rules",
    "tests/config/test_documents.py",
    "tests/config/test_presets.py",
    "tests/agents/test_make.py",
)
CHOSEN = "not reading_path and not mypy and not (test_a_preset_trains and not linear)"


def contents(root: Path) -> dict[str, str]:
    """File -> hash of what is in it."""
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_adding_an_agent_edits_nothing_else(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, copy / name)
    before = contents(copy)
    shutil.copy(ROOT / "tests/outside/linear_q.py", copy / "offbeat/agents/linear_q.py")
    (copy / "tests/agents/test_linear_q.py").write_text(TEST)
    lines = f"{LINEAR_Q}{COMMON}{DRAWN.format(kind='uniform')}".splitlines()
    sourced = [f"{line}  # ours" if "=" in line else line for line in lines]
    preset = "# Linear Q-learning on Catch: added by a test, gone after it\n" + "\n".join(sourced)
    (copy / "offbeat/config/presets/linear-q.toml").write_text(preset)
    added = set(contents(copy)) - set(before)
    assert len(added) == 3

    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(copy)}
        result = subprocess.run(
            [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
        return result.stdout

    run("-m", "offbeat.config.documents", "docs")  # what ``make docs`` does
    after = contents(copy)
    edited = {name for name in before if after.get(name) != before[name]}
    assert edited == MADE
    assert "linear-q" in (copy / "docs/preset_list.md").read_text()
    assert "agent linear_q" in (copy / "docs/options.md").read_text()
    said = run("-m", "offbeat", "train", "linear-q", "--total-frames", "2000", "--out", str(tmp_path / "run"))
    assert "finished: " in said
    assert "linear_q" in run("-m", "offbeat", "train", "--help")
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN, *RULES)
    run("-m", "ruff", "check", "--quiet", "--no-cache", "offbeat")
    assert {name for name in before if contents(copy).get(name) != before[name]} == MADE
