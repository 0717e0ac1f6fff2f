"""Sensitivities in runs of processes: a dying actor ends an episode, and unrolls that were skipped are gaps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import RunConfig
from offbeat.errors import UserError
from offbeat.run.train import train
from offbeat.runtime import learner_report
from tests.conformance.runs import records
from tests.conformance.test_kills import read
from tests.runtime.parts import small_config


def config_of(out: Path, **options: Any) -> RunConfig:
    """R2AC on two actors with two environments each."""
    own: dict[str, Any] = {
        "agent": "r2ac", "agent__core": "elstm-rtrl", "out": str(out), "actor__workers": 2, "actor__envs_per_worker": 2,
    }  # fmt: skip
    return small_config(**own | options)


def learnt(out: Path) -> list[dict[str, Any]]:
    """The learner's records so far."""
    return [line for line in read(out) if line["kind"] == "learner"]


class Killer(threading.Thread):
    """Kills an actor once the run learns, then stops the run once it has learnt of that."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self._out, self.error = out, None

    def run(self) -> None:
        try:
            for _ in range(5):  # one that has just ended its episodes cuts none
                before = len(learnt(self._out))
                self._wait(lambda before=before: len(learnt(self._out)) > before + 1)
                (pid,) = [p.pid for p in multiprocessing.active_children() if p.name == "offbeat-actor-1"]
                os.kill(pid, signal.SIGKILL)
                patience = time.monotonic() + 20  # the next one starts within it, also on a busy machine
                self._wait(lambda patience=patience: self._seen() or time.monotonic() > patience)
                if self._seen():
                    break
        except BaseException as error:
            self.error = error
        os.kill(os.getpid(), signal.SIGTERM)

    def _seen(self) -> bool:
        """Whether the learner tells of a restart."""
        return any(line["trace_restarts"] > 0 for line in learnt(self._out))

    def _wait(self, ready: Any) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError("the run does not go on")
            time.sleep(0.02)


def test_an_actor_that_dies_is_a_restart_and_no_gap(tmp_path: Path) -> None:
    out = tmp_path / "run"
    killer = Killer(out)
    killer.start()
    train(config_of(out, engine="local", total_frames=10**9, log__every_s=0.2))
    killer.join(5)
    if killer.error is not None:
        raise killer.error
    assert 0 < sum(line["trace_restarts"] > 0 for line in learnt(out)) <= 2 * 5
    assert all(line["trace_gaps"] == line["truncated_share"] == 0 for line in learnt(out))


def test_unrolls_that_were_skipped_for_their_age_are_gaps(tmp_path: Path) -> None:
    out = tmp_path / "run"
    lagging = {"learner__max_policy_lag": 1, "actor__workers": 1, "actor__envs_per_worker": 8, "actor__append_rows": 20}
    train(config_of(out, total_frames=4_000, replay__samplers__0__max_pending=4, **lagging))
    last = records(out)[-1] | [line for line in records(out) if line["kind"] == "learner"][-1]
    assert last["skipped_unrolls"] > 0
    assert last["trace_gaps"] > 0


def test_of_a_mixture_the_replayed_part_is_truncated(tmp_path: Path) -> None:
    out = tmp_path / "run"
    path = tmp_path / "mixed.toml"
    path.write_text(
        '[preset]\nextends = "r2ac-memory-chain"\n[learner]\nbatch_size = 8\n[replay]\ncapacity = 4000\n'
        '[[replay.samplers]]\nkind = "fifo"\nshare = 0.5\n[[replay.samplers]]\nkind = "uniform"\nshare = 0.5\n'
    )
    import offbeat

    offbeat.train(str(path), out=str(out), engine="inline", total_frames=4_000, evaluation={"at_end": False})
    last = [line for line in records(out) if line["kind"] == "learner"][-1]
    assert last["truncated_share"] == 0.5
    assert last["trace_gaps"] == 0
    assert last["trace_staleness"] > 1


@pytest.mark.parametrize("kinds", [("uniform",), ("fifo", "fifo")])
def test_a_run_without_one_fifo_is_refused_before_it_starts(kinds: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    samplers = "".join(f'[[replay.samplers]]\nkind = "{kind}"\nshare = {1 / len(kinds)}\n' for kind in kinds)
    path.write_text(f'[preset]\nextends = "r2ac-memory-chain"\n[replay]\ncapacity = 4000\n{samplers}')
    import offbeat

    with pytest.raises(UserError, match="one fifo"):
        offbeat.train(str(path), out=str(tmp_path / "run"), engine="inline", total_frames=4_000)
    assert not (tmp_path / "run").exists()


def norms(out: Path, **options: Any) -> list[float]:
    """The norms of a run's gradients, of which each record has one; its weights stay as they are."""
    train(config_of(out, total_frames=600, learner__learning_rate=0.0, log__every_updates=1, **options))
    return [line["gradient_norm"] for line in learnt(out)]


@pytest.mark.parametrize("batches", [2, 4])
def test_made_anew_of_whole_episodes_they_are_what_was_carried_on(
    batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catch ends after seven rows; ten of them before an unroll are all that there is to know."""
    monkeypatch.setattr(learner_report, "REPORT_S", -1.0)
    carried = norms(tmp_path / "carried", learner__batch_size=batches)
    anew = norms(tmp_path / "anew", learner__batch_size=batches, agent__trace_refresh=10)
    truncated = norms(tmp_path / "truncated", learner__batch_size=batches, agent__trace_decay=0.0)
    assert len(carried) > 5
    assert anew == pytest.approx(carried, rel=1e-5)
    assert truncated != pytest.approx(carried, rel=1e-3)


def test_rows_before_an_unroll_must_begin_where_a_state_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asks for 7 rows before each unroll, .* multiple of learner.unroll_length=5"):
        train(config_of(tmp_path / "run", agent__trace_refresh=7))
