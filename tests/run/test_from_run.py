"""A new run that begins with another one's weights, and with its optimiser's statistics where that is asked for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import offbeat
from offbeat.cli import main
from offbeat.config.run_config import RunConfig, apply_overrides
from offbeat.errors import UserError
from offbeat.run.train import resume, train
from offbeat.run.verify import compare_checkpoints
from offbeat.storage.checkpoint import Array, begin, load, newest
from tests.conformance.serial_engine import serialising
from tests.run.test_train import catch

STILL = {"learner__learning_rate": 0.0, "learner__rmsprop_decay": 1.0, "seed": 9}
"""Neither weights nor statistics are moved by an update."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(rmsprop(tmp_path_factory.mktemp("first") / "run", 8)).run


def rmsprop(out: Path, updates: int, **overrides: Any) -> RunConfig:
    """A few updates on Catch by RMSProp."""
    return catch(out, updates, learner__optimizer="rmsprop", **overrides)


def learnt(run: Path) -> dict[str, Array]:
    """The learner's part of a run's newest checkpoint."""
    found = newest(run)
    assert found is not None
    return load(found)[0]["learner"]


def same(one: Path, other: Path, prefix: str) -> bool:
    """Whether two runs have the same entries of names that begin so, of which there are some."""
    a, b = ({name: np.asarray(v) for name, v in learnt(run).items() if name.startswith(prefix)} for run in (one, other))
    return bool(a) and a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_statistics_and_steps_are_those_of_the_other_run(first: Path, tmp_path: Path) -> None:
    taken = train(rmsprop(tmp_path / "taken", 3, **STILL), init_from=first, init_optimiser=True)
    assert same(first, taken.run, "weights/") and same(first, taken.run, "optimiser/square_avg")
    assert learnt(first)["optimiser/square_avg"].any()
    before = int(learnt(first)["optimiser/step"])
    assert before >= 8
    assert int(learnt(taken.run)["optimiser/step"]) == before + taken.updates
    said = (taken.run / "run.log").read_text()
    assert f"starts from {first}, its weights and its optimiser's statistics" in said
    found = newest(taken.run)
    assert found is not None
    assert found.meta["counters"]["updates"] == taken.updates < before, "counters begin anew"


def test_without_being_asked_for_they_begin_anew(first: Path, tmp_path: Path) -> None:
    new = train(rmsprop(tmp_path / "new", 3, **STILL), init_from=first)
    assert same(first, new.run, "weights/")
    assert not learnt(new.run)["optimiser/square_avg"].any()
    assert int(learnt(new.run)["optimiser/step"]) == new.updates
    assert f"starts from {first}, its weights\n" in (new.run / "run.log").read_text()


def test_the_first_step_is_that_of_the_other_optimiser(first: Path) -> None:
    """What the very next update makes of the weights, written out: RMSProp from where the other run was."""
    options = {"learner__learning_rate": 0.01, "learner__schedule": "constant"}
    config = replace(rmsprop(first.parent / "unused", 8, **options), out="")
    before = offbeat.capture(config, batches=1, from_run=first, with_optimiser=True)
    after = offbeat.capture(config, batches=1, after=1, from_run=first, with_optimiser=True)
    network = before.agent.network
    before.agent.loss(before.batches[0], 0.0).total.backward()
    squares = torch.as_tensor(learnt(first)["optimiser/square_avg"])
    base = min(parameter.data_ptr() for parameter in network.parameters())  # they lie in one vector, as statistics do
    places = [(parameter.data_ptr() - base) // 4 for parameter in network.parameters()]
    squares = torch.cat([squares[at : at + p.numel()] for at, p in zip(places, network.parameters(), strict=True)])
    grad = torch.cat([parameter.grad.reshape(-1) for parameter in network.parameters()])
    clip = min(1.0, config.learner.clip_norm / (float(grad.norm()) + 1e-6))
    own = squares * 0.99 + 0.01 * (clip * grad) ** 2
    step = 0.01 * clip * grad / (own.sqrt() + config.learner.epsilon)
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])
    moved = torch.cat([parameter.detach().reshape(-1) for parameter in after.agent.network.parameters()])
    torch.testing.assert_close(moved, weights - step, rtol=1e-5, atol=1e-7)
    assert float((moved - weights).abs().max()) > 1e-4


def test_a_resume_is_bit_for_bit_that_of_a_longer_run(first: Path, tmp_path: Path) -> None:
    start: dict[str, Any] = {"init_from": first, "init_optimiser": True}
    constant = {"learner__schedule": "constant"}
    whole = train(rmsprop(tmp_path / "whole", 12, **constant), **start)
    half = train(rmsprop(tmp_path / "half", 6, **constant), **start)
    resumed = resume(half.run, total_frames=rmsprop(tmp_path, 12).total_frames)
    assert half.updates < resumed.updates == whole.updates
    result = compare_checkpoints(whole.run, resumed.run)
    assert result.equal, result.differing


@pytest.mark.slow
@pytest.mark.parametrize("way", [nullcontext, serialising])
def test_processes_begin_with_the_same(way: Any, first: Path, tmp_path: Path) -> None:
    """Also where everything that a role is told travels as bytes."""
    start: dict[str, Any] = {"init_from": first, "init_optimiser": True}
    options: dict[str, Any] = {}
    inline = train(rmsprop(tmp_path / "inline", 6, **options), **start)
    options |= {"engine": "local", "deterministic": True}
    with way():
        lockstep = train(rmsprop(tmp_path / "lockstep", 6, **options), **start)
    result = compare_checkpoints(inline.run, lockstep.run)
    assert result.equal, result.differing


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"learner.optimizer": "adam"},
            "was 'rmsprop' and is now 'adam': .*, or leave out --with-optimiser",
        ),
        ({"learner.rmsprop_momentum": 0.9}, "learner.rmsprop_momentum was 0.0 and is now 0.9"),
        ({"agent.hidden_size": [8]}, "agent.hidden_size was .* the weights are those of another network"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options: dict[str, Any], text: str, first: Path, tmp_path: Path) -> None:
    config = apply_overrides(rmsprop(tmp_path / "run", 2), options.items())
    with pytest.raises(UserError, match=text):
        train(config, init_from=first, init_optimiser=True)
    assert not (tmp_path / "run").exists()
    if "agent.hidden_size" not in options:
        assert train(config, init_from=first).updates >= 2, "weights alone would do"


def test_weights_alone_have_no_statistics_to_give(first: Path, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    draft = begin(tmp_path / "best", 5)
    draft.write("learner", {name: value for name, value in learnt(first).items() if name.startswith("weights/")})
    draft.commit({}, name="best")
    best = tmp_path / "best" / "checkpoints" / "best"
    with pytest.raises(UserError, match=f"{best} does not fit: .* are none, weights alone: .* leave out"):
        train(rmsprop(tmp_path / "run", 2), init_from=best, init_optimiser=True)
    assert train(rmsprop(tmp_path / "run", 2), init_from=best).updates >= 2


def test_the_command_line(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["train", str(first / "config.toml"), "--total-frames", "60", "--seed", "3"]
    assert main([*again, "--out", str(tmp_path / "a"), "--from", str(first), "--with-optimiser"]) == 0
    assert int(learnt(tmp_path / "a")["optimiser/step"]) > 8
    assert main([*again, "--with-optimiser", "false", "--from", str(first), "--out", str(tmp_path / "b")]) == 0
    assert int(learnt(tmp_path / "b")["optimiser/step"]) < 8
    capsys.readouterr()
    for wrong, text in (
        (
            ["--with-optimiser"],
            "takes over the statistics of another run's optimiser: name it, --from RUN",
        ),
        (["--from", str(first), "--with-optimiser=maybe"], "--with-optimiser maybe: expected true or false"),
        (["--with-optimizer"], "unknown option '--with_optimizer'; did you mean '--with_optimiser'"),
    ):
        assert main([*again, "--out", str(tmp_path / "c"), *wrong]) == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / "c").exists()
