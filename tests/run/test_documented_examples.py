"""Every Python example of the documents runs as it is printed, one after the other of each document, in short.

The guide, whose examples are files and commands as well, has tests in tests/guide; what adding_an_algorithm.md
shows is installed and run by tests/outside/test_document.py.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import offbeat
from tests.guide.guide import GUIDE
from tests.house_rules.source import ROOT
from tests.house_rules.test_documents import DOCUMENTS, blocks

ADDING = ROOT / "docs" / "adding_an_algorithm.md"
SHORT = {"total_frames": 400, "engine": "inline", "evaluation": {"every_frames": 0}, "log": {"tensorboard": False}}


@pytest.mark.parametrize(
    "document",
    [file for file in DOCUMENTS if blocks(file, "python") and file not in (GUIDE, ADDING)],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_it_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train, trained = offbeat.train, []

    def shortly(*given: Any, **options: Any) -> Any:
        trained.append(train(*given, **options, **SHORT))
        return trained[-1]

    monkeypatch.setattr(offbeat, "train", shortly)
    seen: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(document, "python")):
        if "onnx" in block and find_spec("onnxruntime") is None:
            continue  # tests/run/test_export_documented.py says that it was left out
        if "rtgym" in block and find_spec("rtgym") is None:
            continue  # tests/envs/test_rtgym.py has a stand-in for it
        if "from my_robot" in block:
            continue  # a program that asks a policy which is served meanwhile: tests/serving has such ones
        if "sys.argv" in block:
            continue  # a script with arguments: docs/stem.md has one, and tests/run/test_stem.py runs it
        exec(compile(block, f"{document.name}, example {number + 1}", "exec"), seen)
    assert all(result.finished for result in trained)
    if document.name == "environments.md":
        assert seen["env"].action_space.contains(seen["action"])
        assert seen["info"]["action_mask"][seen["turn"]], "an action that the mask allows"
    if document.name == "export.md":
        assert seen["over"] and seen["steps"] > 0
