"""Checkpoints that somebody else made or broke, also with sums that are right: skipped in one line, never a traceback.

Each case changes the newest of two checkpoints of a small run and, where that matters, writes size and sha256 anew.
"""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offbeat.cli import main
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.errors import UserError
from offbeat.run.resumable import check_fits, needs_state
from offbeat.run.train import train
from offbeat.storage import checkpoint as checkpoints
from offbeat.storage import reading as reading
from offbeat.storage.checkpoint import CheckpointError
from tests.checkpoint_damage import CASES, manifest_is, manifest_with, meta_with, newest_of, sign

FRAMES = 200
"""Length of the run whose checkpoints are broken; the one before the newest was saved half-way."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small deterministic run with two checkpoints, parts of actors and .npy files in them."""
    run = tmp_path_factory.mktemp("trained") / "run"
    options = {
        "out": str(run), "device": "cpu", "total_frames": FRAMES, "evaluation.at_end": False,
        "evaluation.every_frames": 0, "checkpoint.every_updates": 5, "checkpoint.keep": 2,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints, "LARGE_BYTES", 4096)
        train(apply_overrides(load_preset("debug"), options.items()))
    assert len(list((run / "checkpoints").iterdir())) == 2
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """Nothing hangs, and nothing takes memory because a header says so."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        limit = pages * resource.getpagesize() + (2 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    handler = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(number: int, frame: object) -> None:
    raise AssertionError("it hangs")


@pytest.mark.parametrize("case", CASES)
def test_what_is_broken_is_skipped_in_one_line(case: str, run: Path) -> None:
    damage, reason = CASES[case]
    broken = newest_of(run)
    damage(broken)
    skipped: list[str] = []
    found = checkpoints.newest(run, skipped.append)
    assert found is not None
    assert found.path != broken
    assert len(skipped) == 1
    assert broken.name in skipped[0]
    assert reason in skipped[0], skipped[0]
    assert skipped[0].isprintable(), "one line, and nothing that steers a terminal"
    assert len(skipped[0]) < 1000
    parts, _ = checkpoints.load(found)
    assert "learner" in parts
    weights, _ = checkpoints.load_weights(run)
    assert weights
    with pytest.raises(CheckpointError):
        checkpoints.load(reading.verified(broken))


TRIED = [
    "manifest-deep",
    "counters-text",
    "fifo-manifest.json",
    "fifo-learner.safetensors",
    "header-shape",
    "npy-pickle",
]


@pytest.mark.parametrize("case", TRIED)
def test_every_command_takes_the_older_one(case: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from offbeat.run.load import load

    broken = newest_of(run)
    CASES[case][0](broken)
    load(run)
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    assert main(["resume", str(run)]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "skipped a broken checkpoint" in line]
    assert broken.name in told[-1]
    assert (newest_of(run) / "learner.safetensors").is_file(), "saved anew"


@pytest.mark.parametrize("case", ["without-counters", "without-learner", "without-weights", "metrics"])
def test_a_resume_takes_one_that_it_can_go_on_from(case: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = newest_of(run)
    if case == "without-counters":
        meta_with(lambda meta: meta.pop("counters"))(broken)
    elif case == "metrics":
        meta_with(lambda meta: meta["metrics"].update(seconds="long"))(broken)
    elif case == "without-learner":
        manifest_with(lambda m: m["files"].pop("learner.safetensors"))(broken)
    else:
        shutil.copy(broken / "actor-0.safetensors", broken / "learner.safetensors")
        sign(broken)
    assert main(["resume", str(run)]) == 0
    said = capsys.readouterr().err
    assert broken.name in said
    told = ("meta.json lacks the counters agent_steps, updates", "no network weights", "than a run notes: seconds")
    assert any(reason in said for reason in told)


def test_with_nothing_but_broken_ones_each_command_says_so_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (run / "checkpoints").iterdir():
        manifest_is("null")(folder)
    for command in (["resume", str(run)], ["eval", str(run)]):
        assert main(command) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" not in line]
        assert len(lines) == 1, lines
        assert "no complete checkpoint" in lines[0]


def test_roles_load_the_checkpoint_that_the_parent_chose(run: Path, tmp_path: Path) -> None:
    """Also where the newest one's part of their own is whole."""
    from offbeat.run.verify import compare_checkpoints

    older = Path(shutil.copytree(run, tmp_path / "older"))
    shutil.rmtree(newest_of(older))
    streams = newest_of(run) / "streams.safetensors"
    content = bytearray(streams.read_bytes())
    content[-1] ^= 1
    streams.write_bytes(content)
    for folder in (run, older):
        assert main(["resume", str(folder), "--total-frames", str(2 * FRAMES)]) == 0
    result = compare_checkpoints(run, older)
    assert result.equal, result.differing


SIZES, TABLES, LISTS = (
    ("metrics_bytes", "progress_bytes"),
    ("status", "acted_frames", "trained_frames"),
    ("returns", "lengths"),
)
OTHER = [(name, value) for name in SIZES for value in (None, "x", -1, 1.5, [], True, 2**70)]
OTHER += [("seconds", value) for value in (None, "x", -1, {})]
OTHER += [(name, value) for name in TABLES for value in (None, "x", 3, [], {"a": "x"}, {"a": [1]})]
OTHER += [(name, value) for name in LISTS for value in (None, "x", 3, {}, ["x"], [None])]
OTHER += [("averages", value) for value in (None, {}, [1], [["a", "b"]], [["a", "b", 3]], [[[], "b", {}]])]
OTHER += [("averages", [["a", "b", {name: "x"}]]) for name in ("records", "total", "count", "last", "nonfinite")]


def test_metrics_of_another_kind_are_found(trained: Path) -> None:
    whole = reading.verified(newest_of(trained))
    needs_state(whole)
    for name, value in OTHER:
        meta = {**whole.meta, "metrics": {**whole.meta["metrics"], name: value}}
        with pytest.raises(CheckpointError, match=f"other metrics than a run notes: {name}"):
            needs_state(replace(whole, meta=meta))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_of_any_file_ends_in_an_older_one_or_in_one_line(trained: Path, data: st.DataObject) -> None:
    """Bits flipped and files cut, with the sums of before or with right ones."""
    from offbeat.agents.make import make_agent
    from offbeat.config.run_config import read_config
    from offbeat.envs.registry import env_spec
    from offbeat.runtime.topology import topology
    from offbeat.runtime.world import plan_layout

    source = newest_of(trained)
    copy = trained.parent / "changed" / source.name
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(source, copy)
    name = data.draw(st.sampled_from(sorted(path.name for path in copy.iterdir())))
    content = bytearray((copy / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(content) - 1, 4000)))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    (copy / name).write_bytes(content)
    if data.draw(st.booleans()) and name != "manifest.json":
        sign(copy)
    try:
        weights, _ = checkpoints.load_weights(copy)
        checkpoints.load(reading.verified(copy))
        config = read_config(trained / "config.toml")
        spec = env_spec(config.env)
        agent = make_agent(config.agent_name, config.agent, spec, "cpu")
        layout = plan_layout(config, spec, agent)
        check_fits(config, agent, layout, topology(config, layout.items), checkpoint=copy, init_from=None)
        agent.network.load_state_dict(weights)
    except (CheckpointError, UserError) as refused:
        text = str(refused)
    else:
        text = ""
    assert text.isprintable()
