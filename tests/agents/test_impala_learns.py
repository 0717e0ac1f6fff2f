"""IMPALA learns tiny tasks from hand-made unrolls: the loss's signs and the episode handling are right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from offbeat.agents.impala import Agent, Config
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Inputs, Unroll
from tests.agents.unrolls import change

CHOICES = 3


def spec(action: ActionSpec) -> EnvSpec:
    return EnvSpec("identity", {"observation": ArraySpec((CHOICES,))}, action)


def unroll(agent: Agent, cue: Tensor, shown: Tensor, first: Tensor, reward, discount: Tensor, generator) -> Unroll:
    """Act through T + 1 rows in which ``cue`` [T+1, B] is visible where ``shown``; ``reward(action, cue)`` per row."""
    observation = functional.one_hot(cue, CHOICES).float() * shown[..., None]
    length, batch = cue.shape[0] - 1, cue.shape[1]
    state = start = agent.initial_state(batch)
    outputs = []
    for t in range(length):
        row = Inputs({"observation": observation[t : t + 1]}, first[t : t + 1])
        outputs.append(agent.act(row, state, generator))
        state = outputs[-1].state
    action = torch.stack([output.action for output in outputs])
    extras = {key: torch.stack([output.extras[key] for output in outputs]) for key in outputs[0].extras}
    no = torch.zeros(length, batch, dtype=torch.bool)
    number = torch.zeros(batch, dtype=torch.int64)
    inputs = Inputs({"observation": observation}, first)
    valid = torch.ones(length + 1, batch, dtype=torch.bool)
    version = torch.zeros(length, batch, dtype=torch.int64)
    args = (reward(action, cue[:-1]), discount, no, no, extras, start, version, number, number, number)
    return Unroll(inputs, valid, action, *args)


def train(agent: Agent, make_batch, updates: int, learning_rate: float = 0.01) -> Unroll:
    """Plain Adam on fresh batches; the last batch."""
    optimiser = torch.optim.Adam(agent.network.parameters(), lr=learning_rate)
    for _ in range(updates):
        batch = make_batch()
        optimiser.zero_grad()
        agent.loss(batch, 0.0).loss.backward()
        optimiser.step()
    return make_batch()


def test_repeats_what_it_sees():
    torch.manual_seed(0)
    agent = Agent(Config(hidden_size=(16,), reduction="mean"), spec(ActionSpec("discrete", CHOICES)))
    generator = torch.Generator().manual_seed(0)

    def make_batch() -> Unroll:
        cue = torch.randint(CHOICES, (6, 16), generator=generator)
        always = torch.ones(6, 16, dtype=torch.bool)
        reward = lambda action, cue: (action == cue).float()  # noqa: E731
        return unroll(agent, cue, always, always, reward, torch.zeros(5, 16), generator)

    assert train(agent, make_batch, 150).reward.mean() > 0.9


def test_finds_a_continuous_action():
    torch.manual_seed(0)
    box = ActionSpec("continuous", shape=(1,), low=(0.0,), high=(4.0,))
    config = Config(hidden_size=(16,), reduction="mean", entropy_cost=0.0)
    agent = Agent(config, spec(box))
    generator = torch.Generator().manual_seed(0)

    def make_batch() -> Unroll:
        cue = torch.randint(CHOICES, (6, 16), generator=generator)
        always = torch.ones(6, 16, dtype=torch.bool)
        reward = lambda action, cue: -(action[..., 0] - 1.0 - cue).square()  # noqa: E731
        return unroll(agent, cue, always, always, reward, torch.zeros(5, 16), generator)

    before = make_batch().reward.mean()
    after = train(agent, make_batch, 300, 0.02).reward.mean()
    assert before < -2.0
    assert after > -0.5


def test_remembers_a_cue_from_an_episodes_start_only_with_a_core():
    """Episodes of three rows, cue on the first, reward for naming it on the last; each starts inside the unroll."""
    shares = {}
    for core in ("lstm", "none"):
        torch.manual_seed(0)
        config = Config(hidden_size=(16,), core=core, core_size=16, reduction="mean")
        agent = Agent(config, spec(ActionSpec("discrete", CHOICES)))
        generator = torch.Generator().manual_seed(0)

        def make_batch(agent: Agent = agent, generator: torch.Generator = generator) -> Unroll:
            cue = torch.randint(CHOICES, (3, 24), generator=generator).repeat_interleave(3, 0)
            cue = torch.cat([cue, cue[:1]])  # nine rows and one more, which starts a fourth episode
            first = (torch.arange(10) % 3 == 0)[:, None].expand(10, 24)
            last = (torch.arange(9) % 3 == 2)[:, None].expand(9, 24)
            reward = lambda action, cue: (action == cue).float() * last  # noqa: E731
            return unroll(agent, cue, first, first, reward, 0.9 * (~last).float(), generator)

        shares[core] = train(agent, make_batch, 150, 0.02).reward[2::3].mean().item()
    assert shares["lstm"] > 0.9
    assert shares["none"] < 0.6


def test_learns_off_policy_from_a_uniform_behaviour():
    """All data comes from the uniform policy; the best arm is found all the same."""
    torch.manual_seed(0)
    agent = Agent(Config(hidden_size=(8,), reduction="mean"), spec(ActionSpec("discrete", CHOICES)))
    generator = torch.Generator().manual_seed(0)

    def make_batch() -> Unroll:
        always = torch.ones(6, 16, dtype=torch.bool)
        reward = lambda action, cue: torch.zeros(5, 16)  # noqa: E731
        batch = unroll(
            agent, torch.zeros(6, 16, dtype=torch.int64), always, always, reward, torch.zeros(5, 16), generator
        )
        action = torch.randint(CHOICES, (5, 16), generator=generator)
        extras = {"behaviour_logits": torch.zeros(5, 16, CHOICES)}
        return change(batch, action=action, extras=extras, reward=(action == 1).float())

    batch = train(agent, make_batch, 100)
    policy = agent._forward(batch.inputs, {}).policy.softmax(-1)
    assert policy[..., 1].mean() > 0.9
