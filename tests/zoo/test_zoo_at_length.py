"""Each environment of the zoo through everything that is done with a run, on both engines and both kinds of agents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import offbeat
from offbeat.errors import UserError
from tests.zoo.entries import ZOO
from tests.zoo.entry import Entry
from tests.zoo.runs import line, run_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
GOOD = [entry for entry in ZOO if entry.trains]
IN_PROCESSES = (
    "box-uint64", "box-float16", "box-scalar", "box-size-0", "dict-size-0", "picture-hwc-1", "picture-chw-12",
    "picture-cube", "picture-cube-told", "discrete-1", "multi-discrete-nested", "multi-binary-shape", "dict-nested",
    "dict-two-pictures", "tuple-of-dict", "text", "action-discrete-start", "action-discrete-1", "action-box-scalar",
    "action-box-2d", "action-box-float64", "action-box-all-of-float32", "action-multi-discrete", "action-multi-binary",
    "action-dict", "ends-at-once", "ends-never", "ends-never-cut", "ends-both", "ends-registered", "reward-array",
    "reward-nan", "reward-nan-last", "reward-array-1", "reward-huge-clipped", "mask-bits", "mask-info", "mask-short",
    "mask-stuck", "wrong-shape-later", "wrong-float-bytes", "missing-key-later", "observation-nan", "old-reset",
    "old-step", "no-seed", "ignores-seed", "remembers", "raises-init", "raises-reset", "raises-step", "raises-close",
    "exits", "needs-arguments", "has-arguments", "nothing", "same", "vector", "vector-own", "buffer-frozen",
    "moves-actions-later", "differs", "needs-close", "slow-init", "leaves-thread", "talks", "wanders", "draws",
    "draws-window",
)  # fmt: skip
"""Those with which something could go otherwise between processes: starting them takes long."""
LOCAL = [
    (entry, entry.agents[index % len(entry.agents)])
    for index, entry in enumerate(entry for entry in ZOO if entry.name in IN_PROCESSES)
]


@pytest.mark.parametrize(
    ("entry", "agent"),
    [pytest.param(entry, agent, id=f"{entry.name}-{agent}") for entry in GOOD for agent in entry.agents],
)
def test_scored_exported_filmed_and_gone_on_with(
    entry: Entry, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    assert run_of(entry, agent, run).updates > 0
    assert offbeat.export(run, env_factory=entry.make).stat().st_size > 0
    if entry.ends:
        assert len(offbeat.evaluate(run, episodes=2, env_factory=entry.make).returns) == 2
        film(entry, run)
    if entry.resume_says:
        with pytest.raises(Exception, match=entry.resume_says):
            offbeat.resume(run, 80, env_factory=entry.make)
        return
    result = offbeat.resume(run, 80, env_factory=entry.make)
    assert result.finished and result.frames >= 80


def film(entry: Entry, run: Path) -> None:
    """One episode as a GIF."""
    if not entry.film_says:
        assert offbeat.record(run, format="gif", env_factory=entry.make).stat().st_size > 0
        return
    with pytest.raises(Exception, match=entry.film_says):
        offbeat.record(run, format="gif", env_factory=entry.make)


def test_what_runs_in_processes_exists() -> None:
    assert set(IN_PROCESSES) <= {entry.name for entry in ZOO}


@pytest.mark.parametrize(
    ("entry", "agent"), [pytest.param(entry, agent, id=f"{entry.name}-{agent}") for entry, agent in LOCAL]
)
def test_in_processes(entry: Entry, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    options = {"engine": "local", "actor.max_restarts": 0}
    if entry.trains or entry.local_trains:
        result = run_of(entry, agent, run, **options)
        assert result.finished and result.updates > 0
        if entry.ends:
            assert len(offbeat.evaluate(run, episodes=2, env_factory=entry.make).returns) == 2
        return
    with pytest.raises(BaseException) as caught:
        run_of(entry, agent, run, **options)
    assert re.search(entry.says, line(caught.value)), line(caught.value)
    assert run.exists() == (entry.at != "start"), "runs at their own pace take no look"
    assert isinstance(caught.value, UserError | RuntimeError)
