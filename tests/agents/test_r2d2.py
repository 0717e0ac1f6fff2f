"""R2D2's loss against a slow loop over real rows, its worked example, and states that give the actor's values."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from offbeat.agents.r2d2 import Agent, Config
from offbeat.config.run_config import from_dict
from offbeat.run.train import train
from offbeat.types import LEGAL, Inputs, Sequence
from tests.agents.items import Injected, gradients, injected_target, make_sequence, masked_spec, unlike
from tests.agents.unrolls import make_spec, row

COLUMNS: list[tuple[int, int | None, str]] = [
    (0, None, ""),  # all within one episode
    (0, 6, "terminated"), (0, 6, "truncated"),  # in the rows that are trained on
    (0, 8, "terminated"), (0, 8, "truncated"),  # in the tail
    (0, 4, "truncated"), (0, 4, "terminated"),  # after a single row that is trained on
    (3, None, ""), (2, 7, "truncated"), (1, 5, "terminated"),  # the episode's start, burn-in padded
]  # fmt: skip
"""Columns for burn-in 3, length 4, n = 2: T = 9 rows."""


def make_agent(masked: bool = False, **options: Any) -> Agent:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "hidden_size": (8,),
        "head_size": 6,
        "core_size": 5,
        "length": 4,
        "burn_in": 3,
        "n_step": 2,
    }
    agent = Agent(Config(**(small | options)), masked_spec() if masked else make_spec())
    unlike(agent)
    return agent


def h(x: float) -> float:
    return math.copysign(math.sqrt(abs(x) + 1) - 1, x) + 1e-3 * x


def h_inverse(x: float) -> float:
    e = 1e-3
    return math.copysign(((math.sqrt(1 + 4 * e * (abs(x) + 1 + e)) - 1) / (2 * e)) ** 2 - 1, x)


def column(inputs: Inputs, b: int, rows: range) -> Inputs:
    part = slice(rows.start, rows.stop)
    assert inputs.last_action is not None and inputs.last_reward is not None
    observation = {key: value[part, b : b + 1] for key, value in inputs.observation.items()}
    last = inputs.last_action[part, b : b + 1], inputs.last_reward[part, b : b + 1]
    return Inputs(observation, inputs.first[part, b : b + 1], *last)


def slow_loss(agent: Agent, batch: Sequence, columns: list[tuple[int, int | None, str]]) -> tuple[Tensor, list[float]]:
    """Column by column over real rows alone: no padding is ever looked at. Also the priorities."""
    config = agent.config
    burn_in, n, rows = config.burn_in, config.n_step, len(batch.reward)
    total, priorities = torch.zeros(()), []
    squash, expand = (h, h_inverse) if config.rescale >= 0 else (float, float)
    for b, (lead, end, _) in enumerate(columns):
        final = rows if end is None else end  # the last row that is looked at
        state = {name: value[b : b + 1] for name, value in batch.core_state.items()}
        if config.state == "zero":
            state = {name: torch.zeros_like(value) for name, value in state.items()}
        target_q = agent.forward(agent.target, column(batch.inputs, b, range(lead, final + 1)), state).value[:, 0]
        with torch.no_grad():
            for t in range(lead, burn_in):
                state = agent.forward(agent.network, column(batch.inputs, b, range(t, t + 1)), state).state
        q = agent.forward(agent.network, column(batch.inputs, b, range(burn_in, final + 1)), state).value[:, 0]
        errors = []
        for t in range(burn_in, min(burn_in + config.length, final)):
            value, factor, k = 0.0, 1.0, t
            while True:
                value += factor * batch.reward[k, b].item()
                factor *= batch.discount[k, b].item()
                k += 1
                if k == t + n or k == final or factor == 0:
                    break
            if factor:
                allowed = list(range(3))
                if LEGAL in batch.inputs.observation:
                    allowed = [a for a in range(3) if batch.inputs.observation[LEGAL][k, b, a]]
                chooser = (q[k - burn_in] if config.double else target_q[k - lead]).tolist()
                best = max(allowed, key=lambda a, chooser=chooser: chooser[a])
                value += factor * expand(target_q[k - lead, best].item())
            errors.append(squash(value) - q[t - burn_in, batch.action[t, b]])
        losses = torch.stack(errors)
        sizes = losses.abs()
        if config.loss == "huber":
            losses = torch.where(sizes < 1, 0.5 * losses**2, sizes - 0.5)
        else:
            losses = 0.5 * losses**2
        one = losses.mean() if config.loss_rows == "mean" else losses.sum()
        total = total + one * (1.0 if batch.weight is None else batch.weight[b])
        sizes = sizes.detach()
        priorities.append((config.eta * sizes.max() + (1 - config.eta) * sizes.mean()).item())
    return total / len(columns), priorities


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"masked": True},
        {"rescale": -1.0, "loss": "huber", "loss_rows": "sum"},
        {"state": "zero", "eta": 0.3},
        {"double": False, "masked": True, "dueling": False},
        {"last_action": False, "last_reward": False},
    ],
)
def test_the_loss_is_the_slow_loops(options: dict[str, Any]) -> None:
    agent = make_agent(**options)
    batch = make_sequence(agent, COLUMNS)
    output = agent.loss(batch, 0.0)
    slow, priorities = slow_loss(agent, batch, COLUMNS)
    torch.testing.assert_close(output.loss, slow, rtol=1e-4, atol=1e-5)
    assert not output.feedback["priority"].requires_grad
    torch.testing.assert_close(output.feedback["priority"], torch.tensor(priorities), rtol=1e-4, atol=1e-5)
    known = gradients(agent, slow)
    for name, gradient in gradients(agent, agent.loss(batch, 0.0).loss).items():
        torch.testing.assert_close(gradient, known[name], rtol=1e-3, atol=1e-5)
    assert all(metric.isfinite() and not metric.requires_grad for metric in output.metrics.values())
    unweighted = replace(batch, weight=None)
    torch.testing.assert_close(agent.loss(unweighted, 0.0).loss, slow_loss(agent, unweighted, COLUMNS)[0])


def test_without_burn_in() -> None:
    columns: list[tuple[int, int | None, str]] = [(0, None, ""), (0, 2, "truncated"), (0, 5, "terminated")]
    agent = make_agent(burn_in=0)
    batch = make_sequence(agent, columns)
    assert batch.burn_in == 0
    torch.testing.assert_close(agent.loss(batch, 0.0).loss, slow_loss(agent, batch, columns)[0])


@pytest.mark.parametrize("terminated", [False, True])
def test_the_loss_of_the_worked_example(terminated: bool) -> None:
    """gamma = 0.997, n = 5: y = 10.6725390148, and 6.8507498017 where the episode ends with the third reward."""
    d = torch.float64
    agent = make_agent(burn_in=0, length=1, n_step=5)
    batch = make_sequence(agent, [(0, 3, "terminated") if terminated else (0, None, "")])
    reward = torch.tensor([10, 0, 50, 0, -5, 0], dtype=d)[:, None] * batch.valid[:-1]
    batch = replace(batch, reward=reward, discount=batch.discount.to(d), action=torch.zeros(6, 1).long(), weight=None)
    batch.discount[batch.discount > 0] = 0.997
    online, target = torch.full((7, 1, 3), 1e3, dtype=d), torch.full((7, 1, 3), -1e3, dtype=d)
    online[5, 0], target[5, 0] = torch.tensor([7.1, 8.3, 8.2], dtype=d), torch.tensor([8.5, 8.0, 9.0], dtype=d)
    online[0, 0, 0] = 7.9
    agent.network, agent._target = Injected(online), injected_target(target)
    output = agent.loss(batch, 0.0)
    delta = 6.8507498017 - 7.9 if terminated else 2.7725390148
    assert output.feedback["priority"].item() == pytest.approx(abs(delta), abs=1e-9)
    assert output.loss.item() == pytest.approx(delta**2 / 2, abs=1e-8)
    if not terminated:
        assert output.loss.item() == pytest.approx(3.8434862942, abs=1e-8)


def test_rows_that_are_not_trained_on_get_no_gradient() -> None:
    agent = make_agent()
    batch = make_sequence(agent, COLUMNS)
    observation = batch.inputs.observation["observation"].requires_grad_()
    agent.loss(batch, 0.0).loss.backward()
    assert observation.grad is not None
    learnt = (observation.grad != 0).any(-1)
    assert torch.equal(learnt[:-1], batch.mask)
    assert not learnt[-1].any()
    assert all(weight.grad is None for weight in agent.target.parameters())


def test_what_padding_holds_does_not_matter() -> None:
    agent = make_agent()
    batch = make_sequence(agent, COLUMNS)
    known = agent.loss(batch, 0.0)
    observation = batch.inputs.observation["observation"]
    for b, (lead, end, _) in enumerate(COLUMNS):
        observation[:lead, b] += 9.0
        if end is not None:
            observation[end + 1 :, b] += 9.0
    noise = 9.0 * (~batch.valid[:-1]).float()
    changed = agent.loss(replace(batch, action=torch.where(batch.valid[:-1], batch.action, 0)), 0.0)
    torch.testing.assert_close(changed.loss, known.loss)
    extras = {name: value + noise for name, value in batch.extras.items()}
    changed = agent.loss(replace(batch, extras=extras), 0.0)
    for name, value in known.metrics.items():
        torch.testing.assert_close(changed.metrics[name], value)


@pytest.mark.parametrize("burn_in", [0, 3])
def test_stored_states_and_the_actors_weights_give_the_actors_values(burn_in: int) -> None:
    """Act through an episode, keep the state before its fourth row, unroll from there: the same values come out."""
    agent = make_agent(burn_in=burn_in)
    rows = burn_in + 4 + 2
    columns: list[tuple[int, int | None, str]] = [(0, None, "")] * 3
    batch = make_sequence(agent, columns)
    before = make_sequence(agent, columns, seed=1).inputs
    before.first[0] = True
    state = agent.initial_state(3)
    for t in range(3):
        state = agent.act(row(before, t), state, None).state
    batch = replace(batch, core_state={name: value.clone() for name, value in state.items()})
    actions, q = [], []
    for t in range(rows):
        inputs = row(batch.inputs, t)
        inputs.epsilon = torch.full((1, 3), 0.5)
        output = agent.act(inputs, state, torch.Generator().manual_seed(t))
        state = output.state
        actions.append(output.action)
        q.append(output.extras["q"])
    batch = replace(batch, action=torch.stack(actions), extras={"q": torch.stack(q)})
    values, start = agent._online(batch)
    assert all(torch.equal(start[name], batch.core_state[name]) for name in start)
    unrolled = values[:-1].gather(-1, batch.action[burn_in:].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(unrolled, batch.extras["q"][burn_in:], rtol=1e-6, atol=1e-6)
    metrics = agent.loss(batch, 0.0).metrics
    assert metrics["delta_q_first"] < 1e-5 and metrics["delta_q_last"] < 1e-5
    other = replace(batch, core_state=agent.initial_state(3))
    assert agent.loss(other, 0.0).metrics["delta_q_first"] > 1e-4


def tmaze(out: Path, **agent: Any) -> Any:
    """R2D2 on a T-maze whose episodes begin and end anywhere in a sequence."""
    small = {"name": "r2d2", "hidden_size": [8], "head_size": 0, "core_size": 8, "length": 6, "n_step": 2, "period": 3}
    return from_dict({
        "out": str(out), "device": "cpu", "engine": "inline", "total_frames": 1200,
        "env": {"id": "toy/tmaze", "length": 4},
        "agent": small | agent,
        "actor": {"workers": 2, "envs_per_worker": 3},
        "learner": {"batch_size": 8, "unroll_length": 5, "optimizer": "adam", "learning_rate": 0.0},
        "replay": {"capacity": 600, "samples_per_insert": 1.0, "samplers": [
            {"kind": "prioritised", "initial_priority": "actor", "alpha": 0.9, "min_rows": 120}]},
        "evaluation": {"every_frames": 0, "at_end": False, "episodes": 2, "envs": 2},
        "log": {"tensorboard": False, "dashboard": False},
    })  # fmt: skip


@pytest.mark.parametrize("agent", [{"burn_in": 6}, {"burn_in": 3, "state": "stored"}, {"burn_in": 0}])
def test_what_comes_back_from_replay_gives_the_actors_values(agent: dict[str, Any], tmp_path: Path) -> None:
    """With weights that never change, the values of sequences from replay are those that the actors noted down."""
    result = train(tmaze(tmp_path / "run", **agent))
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    learner = [line for line in lines if line["kind"] == "learner"]
    assert result.updates > 10 and learner
    assert max(line[name] for line in learner for name in ("delta_q_first", "delta_q_last")) < 1e-5
    assert 0.0 < learner[-1]["trained_share"] < 1.0


def test_with_zero_states_they_are_not(tmp_path: Path) -> None:
    result = train(tmaze(tmp_path / "run", burn_in=0, state="zero"))
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["delta_q_first"] for line in lines if line["kind"] == "learner") > 1e-3


def test_the_papers_defaults() -> None:
    config = Config()
    assert (config.discount, config.n_step, config.core_size, config.head_size) == (0.997, 5, 512, 512)
    assert (config.length, config.burn_in, config.period, config.state) == (80, 40, 40, "stored")
    assert (config.eta, config.rescale, config.target_period) == (0.9, 1e-3, 2500)
    assert config.last_action and config.last_reward


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"length": 0}, "length=0 is out of range; allowed: 1 or above"),
        ({"period": 0}, "period=0 is out of range; allowed: 1 or above"),
        ({"burn_in": -1}, "burn_in=-1 is out of range; allowed: 0 or above"),
        ({"core_size": 0}, "core_size=0 is out of range; allowed: 1 or above"),
        ({"eta": 1.1}, "eta=1.1 is out of range; allowed: 0 to 1"),
        ({"discount": -0.1}, "discount=-0.1 is out of range; allowed: 0 to 1"),
    ],
)
def test_config_says_what_is_out_of_range(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Config(**options)
