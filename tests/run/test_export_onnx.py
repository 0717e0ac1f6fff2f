"""ONNX files do what the agents do, in ONNX Runtime: all kinds of networks, observations and actions."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import offbeat
from offbeat.cli import main
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import translator
from offbeat.errors import UserError
from offbeat.run.export import chosen_format
from offbeat.run.export_check import check
from offbeat.run.export_onnx import OnnxFile, output_name
from tests.run.test_export_check import CONFIG, drawn, written
from tests.run.test_exported import LSTM, Own

SLOW = pytest.mark.slow
CASES = {
    "lstm": ("impala", LSTM | {"normalise": True}, partial(Own, "nested", action="several")),
    "gaussian": ("impala", {"normalise": True}, partial(Own, action="box")),
    "r2d2": ("r2d2", {"core_size": 8}, partial(Own, "pictures", told=True)),
    "rainbow": ("rainbow", {"head_size": 16, "normalise": True}, partial(Own, "tuple")),
}
MORE = {
    "dqn": ("dqn", {}, partial(Own, "grey")),
    "number": ("impala", {}, partial(Own, "number")),
    "numbers": ("impala", {}, partial(Own, "numbers", action="bits")),
    "integers": ("impala", LSTM, partial(Own, "integers", action="box")),
    "pictures": ("impala", LSTM, partial(Own, "pictures")),
    "masked": ("dqn", {"normalise": True}, partial(Own, "masked")),
    "deep": ("impala", {"torso": "resnet"}, partial(Own, "grey")),
}


def packages() -> None:
    """Skip where the extra is not there."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=SLOW) for case in MORE)])
def test_it_does_what_the_agent_does(case: str, tmp_path: Path) -> None:
    packages()
    name, options, factory = (CASES | MORE)[case]
    agent = drawn(name, options, factory)
    file = written(agent, factory, tmp_path / "policy.onnx")
    verdict = check(file, agent, CONFIG, 100, translator(CONFIG, factory), factory)
    assert verdict.observations == 100 and verdict.episodes > 5 and verdict.difference < 1e-5
    assert [one.name for one in tmp_path.iterdir()] == ["policy.onnx"], "one file, whatever its size"


def test_an_environment_of_offbeats_terms(tmp_path: Path) -> None:
    """Here the action that is stored is the one that comes out: one tensor under two names."""
    packages()
    config = EnvConfig(id="toy/dict", length=5, frame_skip=1)
    agent = drawn("impala", LSTM, None, config)
    file = written(agent, None, tmp_path / "policy.onnx", config)
    assert check(file, agent, config, 50, None, None).observations == 50


def test_the_file_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    packages()
    import onnxruntime

    factory = partial(Own, "nested", told=True)
    written(drawn("impala", LSTM, factory), factory, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["offbeat.json"])
    given = {one.name: [size if isinstance(size, int) else "B" for size in one.shape] for one in session.get_inputs()}
    assert given == {name: one["shape"] for name, one in about["inputs"].items()}
    assert set(given) == {
        "observation.a.x", "observation.b.0", "observation.b.1", "first", "state.h", "state.c", "last_action",
        "last_reward", "action_mask",
    }  # fmt: skip
    gives = {one.name for one in session.get_outputs()}
    assert gives == {"policy", "value", "action", "next.state.h", "next.state.c", "next.last_action"}
    assert {output_name("state.h"), output_name("last_action"), "action", "policy"} <= gives
    assert {"policy", "value", "action", "next.last_action"} <= set(about["outputs"])
    assert about["order"][0] == "observation" and "Discrete(3, start=-1)" in about["spaces"]["action"]


def test_a_run_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages()
    options: dict[str, Any] = {"log": {"tensorboard": False}, "evaluation": {"every_frames": 0, "at_end": False}}
    run = offbeat.train("debug", total_frames=200, out=str(tmp_path / "run"), **options).run
    assert offbeat.export(run, format="onnx") == run / "policy.onnx"
    capsys.readouterr()
    assert main(["export", str(run), "--out", str(tmp_path / "here.onnx")]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(tmp_path / "here.onnx")
    (line,) = shown.err.splitlines()
    assert line.startswith("offbeat: here.onnx was checked on 100 observations of "), "and torch says nothing"
    assert set(OnnxFile(tmp_path / "here.onnx")._names) == {"policy", "value", "action"}


def test_names_and_formats_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offbeat.run.export.need_onnx", lambda: None)
    assert chosen_format(None, None) == "pt2" and chosen_format("onnx", None) == "onnx"
    assert chosen_format(None, Path("a.onnx")) == "onnx" and chosen_format(None, Path("a.anything")) == "pt2"
    with pytest.raises(UserError, match=r"'a.pt2' is to be of the format 'onnx'; let its name end in .onnx"):
        chosen_format("onnx", Path("a.pt2"))
    with pytest.raises(UserError, match=r"unknown format 'onxx'; did you mean 'onnx'\? known: pt2, onnx"):
        chosen_format("onxx", None)


def test_without_the_extra_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"ONNX files need the packages .*pip install 'offbeat\[onnx\]'") as error:
        chosen_format("onnx", None)
    assert "\n" not in str(error.value)
