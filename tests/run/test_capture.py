"""Batches for notebooks are the very ones that a run trains on, and come with the agent as it was then."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import offbeat
from offbeat.agents import dqn, impala
from offbeat.errors import UserError
from offbeat.types import Transition, Unroll

IMPALA = {"env": "toy/catch", "total_frames": 4000, "log__tensorboard": False, "evaluation__at_end": False}
DQN: dict[str, Any] = IMPALA | {
    "agent": "dqn", "agent__explore": 500, "agent__target_period": 7, "learner__batch_size": 8,
    "actor__append_rows": 4, "replay": {"samples_per_insert": 1.0, "samplers": '[{kind = "prioritised"}]',
    "capacity": 2000},
}  # fmt: skip
CASES = {"impala": (impala, IMPALA | {"agent__normalise_reward": True}, Unroll), "dqn": (dqn, DQN, Transition)}


def tensors(value: Any) -> list[torch.Tensor]:
    """All of them in a batch, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [found for item in inner for found in tensors(item)]


def equal(one: Any, other: Any) -> bool:
    """Bit for bit."""
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", list(CASES))
def test_they_are_the_batches_that_a_run_trains_on(name: str, tmp_path: Path) -> None:
    """The first after five updates, with that moment's weights; an inline run of the same seed tells them."""
    module, options, kind = CASES[name]
    seen: list[tuple[Any, float, dict[str, torch.Tensor]]] = []

    def factory(config: Any, spec: Any, device: Any) -> Any:
        agent = module.Agent(config, spec, device)
        loss = agent.loss

        def told(batch: Any, progress: float) -> Any:
            seen.append((copy.deepcopy(batch), progress, copy.deepcopy(agent.network.state_dict())))
            return loss(batch, progress)

        agent.loss = told
        return agent

    own = {key: value for key, value in options.items() if key != "agent"}
    offbeat.train("debug", agent=name, out=str(tmp_path / "run"), agent_factory=factory, engine="inline", **own)
    captured = offbeat.capture("debug", agent=name, batches=2, after=5, **own)
    batch, progress, weights = seen[5]
    assert isinstance(captured.batches[0], kind) and len(captured.batches) == 2
    assert equal(captured.batches[0], batch)
    assert captured.progress == progress and captured.updates == 5
    now = captured.agent.network.state_dict()
    assert all(torch.equal(now[key], value) for key, value in weights.items() if "reward_scale" not in key)
    assert all(weight.grad is None or not weight.grad.any() for weight in captured.agent.network.parameters())
    assert not equal(captured.batches[1], captured.batches[0])
    captured.agent.loss(captured.batches[0], captured.progress).loss.backward()


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    captured = offbeat.capture("debug", batches=1)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert list(tmp_path.iterdir()) == []
    text = str(captured)
    assert text.startswith("1 batches after 0 updates, each a Unroll:\n")
    assert "\n  inputs.observation['observation']: float32 [" in text and "\n  reward: float32 [" in text


def test_it_goes_on_from_the_weights_of_a_run(tmp_path: Path) -> None:
    run = offbeat.train("debug", out=str(tmp_path / "run"), total_frames=400, log__tensorboard=False).run
    agent = offbeat.capture("debug", batches=1, from_run=run).agent
    trained = offbeat.load(run).agent.network.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in agent.network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batches": 0}, "batches=0, after=0: expected at least 1 batch"),
        ({"after": 10_000, "total_frames": 200}, "after=10000: the run is over after [0-9]+ updates; raise total"),
        ({"learner__batchsize": 3}, "did you mean 'learner.batch_size'"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        offbeat.capture("debug", **options)
