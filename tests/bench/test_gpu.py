"""The benchmark of a GPU: rows that fail cost only themselves, time ends it, and a GPU is asked as it can be."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from offbeat.bench import gpu, gpu_watch
from offbeat.bench.gpu import COLUMNS, Row, as_markdown, bench_gpu
from offbeat.bench.gpu_watch import GpuWatch, ask_smi, describe_gpu, driver, gpu_uuid, make_look, smi
from offbeat.bench.live import LiveRun
from offbeat.bench.throughput import EndToEnd
from offbeat.cli import main
from offbeat.config.run_config import RunConfig, load_preset
from offbeat.errors import UserError

RUN = EndToEnd(12_345.6, 4.02, 1.9, 0.005, 7.0, 2**28, 3.25, None, seconds=21.0)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each run would have been: nothing is trained, all take no time and give ``RUN``."""
    runs: list[dict[str, Any]] = []

    class Live(nullcontext[None]):
        def __init__(self, config: RunConfig, **bounds: float) -> None:
            super().__init__()
            runs.append({"config": config, "began": time.monotonic()} | bounds)

    def steady(run: Any, seconds: float, batch_rows: int, *, watch: AbstractContextManager[Any], **more: Any) -> Any:
        runs[-1] |= {"seconds": seconds, "batch_rows": batch_rows} | more
        with watch:
            return RUN

    monkeypatch.setattr(gpu, "LiveRun", Live)
    monkeypatch.setattr(gpu, "steady_state", steady)
    return runs


def test_each_preset_acts_on_the_device_and_on_the_processor_within_its_share(
    told: list[dict[str, Any]], tmp_path: Path
) -> None:
    options = [("learner.batch_size", "8")]
    rows = bench_gpu(["impala-catch", "apex-catch"], device="cpu", minutes=2, options=options, out=tmp_path / "t.md")
    assert [(row.preset, row.acting) for row in rows] == [
        (preset, acting) for preset in ("impala-catch", "apex-catch") for acting in ("server", "actor")
    ]
    configs = [run["config"] for run in told]
    assert [config.actor.inference for config in configs] == ["server", "actor"] * 2
    assert all(config.learner.device == config.device == "cpu" for config in configs)
    assert [run["batch_rows"] for run in told] == [80, 80, 8, 8]
    shares = [run["deadline"] - run["began"] + gpu.STOP_S for run in told]
    for number, share in enumerate(shares):  # what the ones before have not used goes to those after them
        assert share == pytest.approx(120 / (4 - number), abs=5)
    assert all(run["until"] < run["deadline"] and run["stop_s"] == gpu.STOP_S for run in told)
    assert rows[3].command.endswith("apex-catch --device cpu --actor.inference actor --learner.batch_size 8")


def test_what_cannot_run_takes_no_time_from_the_others_and_says_why(
    told: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "new" / "t.md", tmp_path / "t.json"
    arguments = ["nosuch", "impala-catch", "--device", "cpu", "--minutes", "1", "--out", str(out), "--json", str(file)]
    assert main(["bench", "gpu", *arguments]) == 1
    assert [run["seconds"] for run in told] == pytest.approx([30, 60], abs=5)
    shown = capsys.readouterr().out
    assert out.read_text() == shown
    assert shown.count("failed: unknown preset 'nosuch'") == 2 and shown.count("12,346") == 2
    data = json.loads(file.read_text())
    assert [row["run"] is None for row in data["rows"]] == [True, True, False, False]
    assert data["about"]["torch"] == torch.__version__


def test_a_run_that_fails_is_a_row(told: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = gpu.steady_state

    def fails(*arguments: Any, **more: Any) -> EndToEnd:
        if len(told) == 1:
            raise ZeroDivisionError("no steps | at all")
        return trained(*arguments, **more)

    monkeypatch.setattr(gpu, "steady_state", fails)
    rows = bench_gpu(["impala-catch"], device="cpu", minutes=1, out=tmp_path / "t.md")
    assert [row.run for row in rows] == [None, RUN]
    assert "| failed: ZeroDivisionError: no steps / at all | - |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_before_ctrl_c_is_kept(
    number: signal.Signals, told: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = gpu.steady_state

    def pressed(*arguments: Any, **more: Any) -> EndToEnd:
        if len(told) == 2:
            signal.raise_signal(number)
        return trained(*arguments, **more)

    monkeypatch.setattr(gpu, "steady_state", pressed)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["bench", "gpu", "impala-catch", "apex-catch", "--device=cpu", f"--out={tmp_path / 't.md'}"]) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    text = (tmp_path / "t.md").read_text()
    assert [text.count(what) for what in ("12,346", "| interrupted |", "| not run |")] == [1, 1, 2]


def test_without_time_nothing_is_started(told: list[dict[str, Any]], tmp_path: Path) -> None:
    rows = bench_gpu(["impala-catch"], device="cpu", minutes=0.1, out=tmp_path / "t.md")
    assert not told and all("s were left for it" in row.trouble for row in rows)


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "gpu"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "device='cuda', but torch" in err


def test_the_table_is_markdown() -> None:
    rows = [
        Row("impala-atari", "server", "offbeat train a", "bf16", RUN, 41.6, ""),
        Row("impala-atari", "actor", "offbeat train b", "bf16", replace(RUN, learner_wait=0.5), None, "NVMLError: no"),
        Row("apex-small", "actor", "offbeat train c", trouble="failed: " + "a long story " * 50 + "and its end"),
    ]
    lines = as_markdown(rows, {"command": "offbeat bench gpu", "GPU": "one"}).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert lines[:2] == ["command: `offbeat bench gpu`  ", "GPU: one  "]
    assert {line.count(" | ") for line in table if "---" not in line} == {len(COLUMNS) - 1}
    assert "| 12,346 | 42 % | - | 4.02 | 3.2 | 1.90 | 7.0 s | 21 s |" in table[2]
    assert "| 12,346 | - | 50 % |" in table[3] and "GPU busy is not known: NVMLError: no" in lines
    assert "…" in table[4] and "and its end |" in table[4] and len(table[4]) < 300
    assert lines[-4:] == ["offbeat train a", "offbeat train b", "offbeat train c", "```"]


def test_a_run_is_not_waited_for_beyond_its_deadline() -> None:
    began = time.monotonic()
    with (
        LiveRun(load_preset("impala-catch"), deadline=began + 0.3, stop_s=0.2) as run,
        pytest.raises(UserError, match=r"no update in 0 s, and no time is left"),
    ):
        run.wait_for_first_update()
    assert time.monotonic() - began < 30, "and is killed where it does not end"


def test_a_gpu_is_looked_at_as_long_as_is_measured() -> None:
    looks = iter([10.0, None, 30.0])
    asked: list[int] = []

    def look() -> float | None:
        asked.append(1)
        return next(looks)

    with GpuWatch(look, every_s=0.001) as watch:
        while len(asked) < 4:
            time.sleep(0.001)
    assert watch.busy == 20.0 and watch.trouble.startswith("StopIteration"), "a driver that fails ends only the looking"
    with GpuWatch(None) as nothing:
        pass
    assert nothing.busy is None and not nothing.trouble


class Smi:
    """In the place of ``nvidia-smi``."""

    def __init__(self, answer: str | None) -> None:
        self.answer, self.commands = answer, list[list[str]]()

    def run(self, command: list[str], **more: Any) -> Any:
        """Its answer; None: there is no such program."""
        self.commands.append(command)
        if self.answer is None:
            raise FileNotFoundError(command[0])
        return SimpleNamespace(stdout=self.answer)


def test_nvidia_smi_is_asked_where_torch_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Smi("37\n")
    monkeypatch.setattr(subprocess, "run", program.run)
    monkeypatch.setattr(gpu_watch, "gpu_uuid", lambda index: f"GPU-{index}")
    monkeypatch.setattr(torch.cuda, "utilization", lambda index: 64)
    look = make_look("cuda:1")
    assert look is not None and look() == 64.0 and not program.commands

    def missing(index: int) -> int:
        raise ModuleNotFoundError("no binding")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    look = make_look("cuda:1")
    assert look is not None and look() == 37.0
    assert "--query-gpu=utilization.gpu" in program.commands[0] and "--id=GPU-1" in program.commands[0]
    program.answer = "[N/A]"
    assert look() is None, "a part of a GPU does not tell"
    program.answer = None
    with pytest.raises(RuntimeError, match="no binding"):
        look()
    assert make_look("cpu") is None
    with pytest.raises(RuntimeError):
        ask_smi("GPU-1")


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = Smi("570.12\n570.12\n")
    monkeypatch.setattr(subprocess, "run", program.run)
    seen = SimpleNamespace(name="A Card", total_memory=80 * 2**30, uuid="1234-abcd")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: seen)
    assert describe_gpu("cuda").startswith("A Card, 80 GiB, driver 570.12, CUDA ")
    assert gpu_uuid(0) == "GPU-1234-abcd" and "no GPU" in describe_gpu("cpu")
    program.answer = None
    assert smi("driver_version") is None and driver(tmp_path) == "unknown"
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\nGCC version: 12.2.0\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(text)
    assert driver(tmp_path) == "550.54.15"
