"""A role that is one file and one row runs on every engine, is killed and replaced, saved and resumed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import RunConfig
from offbeat.run.train import resume, train
from offbeat.runtime.topology import Topology, topology
from offbeat.storage.checkpoint import find, load
from offbeat.types import ItemSpec
from tests.conformance.counting_role import ROW
from tests.conformance.runs import ENGINES, SERIAL, engine_of, records
from tests.runtime.parts import small_config


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has one row more."""

    def longer(config: RunConfig, items: ItemSpec) -> Topology:
        graph = topology(config, items)
        return replace(graph, roles=(*graph.roles, ROW))

    monkeypatch.setattr(sys.modules["offbeat.run.train"], "topology", longer)


def of(run: Path, kind: str) -> list[dict[str, Any]]:
    """Records of one kind; those that are whole."""
    try:
        return [record for record in records(run) if record["kind"] == kind]
    except (OSError, ValueError):
        return []


SELDOM = ("lockstep", "serial-lockstep", "serial-free")


@pytest.mark.parametrize("engine", ["inline", "free", *(pytest.param(name, marks=pytest.mark.slow) for name in SELDOM)])
def test_it_runs_on_every_engine(engine: str, tmp_path: Path) -> None:
    options = {"engine": "local"} | (ENGINES | SERIAL)[engine]
    with engine_of(engine):
        result = train(small_config(out=str(tmp_path / "run"), total_frames=2000, **options))
    assert result.finished
    seen = [record["seen"] for record in of(result.run, "counter")]
    assert seen == sorted(set(seen))
    if engine.endswith("free"):
        assert 0 < seen[-1] <= result.updates
        return
    assert seen[-1] == result.updates, "its turn comes after the learner's"
    part = load(find(result.run))[0]["counter"]
    assert part["counts"].tolist() == [result.updates, len(seen)]
    with engine_of(engine):
        again = resume(result.run, total_frames=2400)
    (first, *_), reports = of(again.run, "counter")[len(seen) :], of(again.run, "counter")
    assert first["reports"] == len(seen) + 1, "it goes on from its part of the checkpoint"
    assert reports[-1]["seen"] == again.updates


@pytest.mark.parametrize("engine", ["inline", pytest.param("free", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("build", "says"),
    [("builds_nothing", "counter: builds_nothing: expected an offbeat.runtime.host.Host, got NoneType"),
     ("builds_one_that_cannot_save", "counter is saved with the run, but Unsaved has no save")],
)  # fmt: skip
def test_a_role_that_is_none_is_said(
    build: str, says: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(ROW, build=f"tests.conformance.counting_role:{build}")
    monkeypatch.setitem(globals(), "ROW", row)
    if engine == "free" and build != "builds_nothing":
        pytest.skip("roles that run freely are not saved")
    with pytest.raises((TypeError, RuntimeError), match=says):
        train(small_config(out=str(tmp_path / "run"), **({"engine": "local"} | ENGINES[engine])))


@pytest.mark.slow
def test_one_whose_loop_ends_by_itself_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROW", replace(ROW, build="tests.conformance.counting_role:builds_one_that_ends"))
    assert train(small_config(out=str(tmp_path / "run"), total_frames=2000, engine="local")).finished
    said = (tmp_path / "run" / "run.log").read_text()
    assert said.count("counter: its loop has ended by itself; the run goes on without it") == 1


@pytest.mark.parametrize("engine", ["free", pytest.param("serial-free", marks=pytest.mark.slow)])
def test_it_is_killed_and_replaced_and_then_ends_the_run(engine: str, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def kill() -> None:
        for number in range(3):
            deadline = time.monotonic() + 60
            while len(of(out, "restart")) < number or not counts_again(number):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            (pid,) = [p.pid for p in multiprocessing.active_children() if p.name == "offbeat-counter"]
            os.kill(pid or 0, signal.SIGKILL)

    def counts_again(restarts: int) -> bool:
        """Whether there is a report after the last restart."""
        kinds = [record["kind"] for record in [*of(out, "restart"), *of(out, "counter")]]
        after = [record for record in of(out, "counter") if record["reports"] == 1]
        return kinds.count("restart") == restarts and len(after) == restarts + 1

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    options = {"log__every_s": 0.2, "total_frames": 10**9, "engine": "local"}
    with (
        engine_of(engine),
        pytest.raises(RuntimeError, match=r"counter was killed by SIGKILL; it was not replaced again .* nothing=2"),
    ):
        train(small_config(out=str(out), **options))
    killer.join(10)
    assert not killer.is_alive()
    said = (out / "run.log").read_text()
    assert "counter was killed by SIGKILL; replaced (2 of at most 2 times)" in said
    assert [record["counter"] for record in of(out, "restart")] == [0, 0]
    assert find(out).path.exists(), "what was learnt is saved"
