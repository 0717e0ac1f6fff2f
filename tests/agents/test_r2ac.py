"""R2AC's gradient over consecutive unrolls is that of full backpropagation through whole episodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from offbeat.agents import impala, r2ac
from offbeat.agents.base import learner_states, trains_on
from offbeat.agents.contract import check_agent
from offbeat.replay.columns import columns_of, from_columns
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Unroll
from tests.agents.unrolls import BOX, make_inputs, make_spec, make_unroll, row

ROWS, STREAMS = 24, 4
FROZEN = LearnerConfig(optimizer="adam", learning_rate=0.0, schedule="constant", clip_norm=0.0)


def make(core: str = "elstm-rtrl", action: Any = None, **options: Any) -> r2ac.Agent:
    """An agent in float64, always with the same weights."""
    torch.manual_seed(5)
    spec = make_spec() if action is None else make_spec(action=action)
    config = r2ac.Config(hidden_size=(8,), core=core, core_size=6, core_deviation=0.5, **options)  # type: ignore[arg-type]
    agent = r2ac.Agent(config, spec)
    agent.network.double()
    return agent


def whole_life(agent: r2ac.Agent, ends: bool = True) -> Unroll:
    """``ROWS`` rows of ``STREAMS`` streams, in which episodes end at random."""
    generator = torch.Generator().manual_seed(2)
    valid = torch.ones(ROWS + 1, STREAMS, dtype=torch.bool)
    if ends:
        valid = torch.rand(ROWS + 1, STREAMS, generator=generator) > 0.08
    valid[0] = True
    first = torch.zeros_like(valid)
    first[1:] = ~valid[:-1]
    first[0] = True
    valid |= first
    return make_unroll(agent, make_inputs(agent.spec, ROWS + 1, STREAMS, first), valid)


def cut(life: Unroll, start: int, end: int, streams: slice = slice(None)) -> Unroll:
    """The unroll of rows [start, end). Its core state is that of the life's actor, which is the learner's."""
    parts = {}
    for name, values in columns_of(life).items():  # [B, ...], or [B, T, ...] where there is a time axis
        values = values[streams]
        if values.dim() > 1 and not name.startswith("core_state"):
            values = values[:, start : end + (values.shape[1] == ROWS + 1)]
        parts[name] = values
    unroll = from_columns(Unroll, parts)
    unroll.row = torch.full_like(unroll.row, start)
    return unroll


def states(agent: r2ac.Agent, life: Unroll) -> list[dict[str, torch.Tensor]]:
    """The carry before each row."""
    state, found = agent.initial_state(STREAMS), []
    with torch.no_grad():
        for t in range(ROWS + 1):
            found.append(state)
            state = agent._forward(row(life.inputs, t), state).state
    return found


def by_unrolls(agent: r2ac.Agent, life: Unroll, ends: tuple[int, ...], streams: slice = slice(None)) -> Any:
    """Gradients summed over unrolls, through the learner's own update with weights that stay."""
    work = LearnerWork(agent, FROZEN, total_frames=10**9)
    before = states(agent, life)
    weights = dict(agent.network.named_parameters())
    found, start = {name: torch.zeros_like(weight) for name, weight in weights.items()}, 0
    for end in ends:
        unroll = cut(life, start, end, streams)
        unroll.core_state = {name: value[streams] for name, value in before[start].items()}
        output = work.collect(unroll)
        for name, weight in weights.items():
            found[name] += weight.grad
        assert work.apply(unroll, output, output.total.detach(), output.count)
        for state in work.states.values():
            state.trained(unroll, work.updates)
        start = end
    return found


def by_whole(agent: r2ac.Agent, life: Unroll, ends: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The gradient of the same unrolls' losses through one forward over all rows."""
    whole = agent._forward(life.inputs, agent.initial_state(STREAMS))
    losses, start = [], 0
    for end in ends:
        part = impala.NetworkOutput(whole.policy[start : end + 1], whole.value[start : end + 1], {})
        monkeypatch.setattr(agent, "unrolled", lambda batch, part=part: part)
        losses.append(agent.loss(cut(life, start, end), 0.0).total)
        start = end
    agent.network.zero_grad()
    sum(losses).backward()
    return {name: weight.grad.clone() for name, weight in agent.network.named_parameters()}


def beyond_the_torso(found: Any) -> dict[str, torch.Tensor]:
    """What is exact: nothing brings the gradient of the core's inputs over the beginning of an unroll."""
    return {name: value for name, value in found.items() if not name.startswith("torso")}


CUTS = [(ROWS,), (1, 2, 3, 9, 15, ROWS), (5, 10, 15, 20, ROWS)]


@pytest.mark.parametrize("ends", CUTS)
@pytest.mark.parametrize(("rtrl", "tbptt"), [("elstm-rtrl", "elstm-tbptt"), ("rtu", "rtu-tbptt")])
def test_the_whole_loss_has_the_gradient_of_full_backpropagation(rtrl, tbptt, ends, monkeypatch):
    agent = make(rtrl, last_action=True, last_reward=True)
    life = whole_life(agent)
    assert (~life.valid).sum() > 3
    found = by_unrolls(agent, life, ends)
    known = by_whole(make(tbptt, last_action=True, last_reward=True), life, ends, monkeypatch)
    for name, value in beyond_the_torso(known).items():
        assert (found[name] - value).abs().max() < 1e-10, name
    assert agent.sensitivities.gaps == agent.sensitivities.restarts == 0


def test_truncated_backpropagation_has_another(monkeypatch):
    life = whole_life(make(), ends=False)
    found = by_unrolls(make("elstm-tbptt"), life, (5, 10, 15, 20, ROWS))
    known = by_whole(make("elstm-tbptt"), life, (5, 10, 15, 20, ROWS), monkeypatch)
    assert (found["core.Z"] - known["core.Z"]).abs().max() > 1e-3


@pytest.mark.parametrize("core", ["elstm-rtrl", "rtu"])
def test_two_learners_each_with_its_streams_are_one_with_all(core):
    life, ends = whole_life(make(core)), (5, 10, 15, 20, ROWS)
    whole = by_unrolls(make(core), life, ends)
    parts = [by_unrolls(make(core), life, ends, streams) for streams in (slice(0, 1), slice(1, STREAMS))]
    for name, value in whole.items():
        assert (parts[0][name] + parts[1][name] - value).abs().max() < 1e-10, name


def test_continuous_actions_too(monkeypatch):
    life, ends = whole_life(make(action=BOX)), (7, 14, ROWS)
    found = by_unrolls(make(action=BOX), life, ends)
    known = by_whole(make("elstm-tbptt", action=BOX), life, ends, monkeypatch)
    for name, value in beyond_the_torso(known).items():
        assert (found[name] - value).abs().max() < 1e-10, name


def test_no_decay_left_is_truncated_backpropagation():
    life, ends = whole_life(make()), (5, 10, 15, 20, ROWS)
    found = by_unrolls(make(trace_decay=0.0), life, ends)
    for name, value in by_unrolls(make("elstm-tbptt"), life, ends).items():
        torch.testing.assert_close(found[name], value, msg=name)
    half = by_unrolls(make(trace_decay=0.5), life, ends)
    assert not torch.allclose(half["core.Z"], found["core.Z"])


def test_replayed_columns_have_no_sensitivities_and_are_said_so():
    agent = make()
    life = whole_life(agent, ends=False)
    before = states(agent, life)
    work = LearnerWork(agent, FROZEN, total_frames=10**9)

    def trained(start: int, replayed: list[bool]) -> Any:
        unroll = cut(life, start, start + 5)
        unroll.core_state, unroll.replayed = before[start], torch.tensor(replayed)
        output = work.collect(unroll)
        assert work.apply(unroll, output, output.total.detach(), output.count)
        agent.sensitivities.trained(unroll, work.updates)
        return output.metrics

    trained(0, [False] * STREAMS)
    metrics = trained(5, [False, False, True, True])
    assert metrics["truncated_share"] == 0.5
    trace = agent.sensitivities.state()["trace/c.Z"]
    only = make()
    by_unrolls(only, life, (5, 10))
    known = only.sensitivities.state()["trace/c.Z"]
    torch.testing.assert_close(trace[:2], known[:2])
    assert not torch.allclose(trace[2:], known[2:])
    assert trained(10, [False] * STREAMS)["trace_gaps"] == 2  # streams 2 and 3 were five rows further than they had got


def test_only_the_learner_keeps_sensitivities():
    agent = make()
    assert set(learner_states(agent)) == {"sensitivities"}
    assert learner_states(make("elstm-tbptt")) == {}
    assert set(check_agent(r2ac.Agent(r2ac.Config(core_size=6), make_spec()), make_spec())) == {"c"}
    assert set(r2ac.Agent(r2ac.Config(core="rtu", core_size=6), make_spec()).initial_state(2)) == {"c1", "c2"}


@pytest.mark.parametrize("core", ["none", "lstm", "elstm-rtrl", "elstm-tbptt", "rtu", "rtu-tbptt"])
@pytest.mark.parametrize("layers", [1, 2])
def test_every_core_trains(core, layers):
    torch.manual_seed(0)
    agent = r2ac.Agent(r2ac.Config(hidden_size=(8,), core=core, core_size=6, core_layers=layers), make_spec())
    life = whole_life(agent)
    work = LearnerWork(agent, replace(FROZEN, learning_rate=1e-2), total_frames=10**9)
    for start in (0, 8):
        unroll = cut(life, start, start + 8)
        assert work.train_step(agent, unroll) is not None
        for state in work.states.values():
            state.trained(unroll, work.updates)
    assert all(weight.grad is not None for weight in agent.network.parameters())


@pytest.mark.parametrize("option", [{"trace_decay": 0.5}, {"trace_refresh": 10}])
@pytest.mark.parametrize("core", ["none", "lstm", "rtu-tbptt"])
def test_what_means_nothing_to_a_core_is_refused(core, option):
    with pytest.raises(ValueError, match=f"means nothing to core='{core}', which keeps no sensitivities"):
        r2ac.Config(core=core, **option)


def test_asks_for_unrolls_in_their_order_where_it_needs_them():
    assert trains_on(make()).consecutive
    assert not trains_on(make("elstm-tbptt")).consecutive
    assert not trains_on(make("lstm")).consecutive


def test_refuses_what_cannot_be():
    with pytest.raises(ValueError, match=r"trace_decay=1\.5 is out of range; allowed: 0 to 1"):
        r2ac.Config(trace_decay=1.5)
    with pytest.raises(ValueError, match="core_deviation=0"):
        r2ac.Config(core_deviation=0.0)


ATARI = ({"observation": ArraySpec((1, 84, 84), "uint8", 0, 255)}, 4, 6)
DMLAB = ({"observation": ArraySpec((3, 72, 96), "uint8", 0, 255)}, 1, 9)
PROCGEN = ({"observation": ArraySpec((3, 64, 64), "uint8", 0, 255)}, 1, 15)


@pytest.mark.parametrize(
    ("seen", "core", "size", "count"),
    [
        (DMLAB, "none", 512, 985_172), (DMLAB, "lstm", 512, 2_566_730), (DMLAB, "elstm-rtrl", 512, 1_647_178),
        (DMLAB, "elstm-tbptt", 512, 1_647_178), (ATARI, "none", 256, 1_091_038), (ATARI, "lstm", 256, 1_618_391),
        (ATARI, "elstm-rtrl", 256, 1_355_223), (PROCGEN, "none", 256, 626_272), (PROCGEN, "elstm-rtrl", 256, 890_448),
    ],
)  # fmt: skip
def test_networks_have_as_many_weights_as_the_published_ones(seen, core, size, count):
    observation, stack, actions = seen
    stacked = ("observation",) if stack > 1 else ()
    spec = EnvSpec("test", observation, ActionSpec("discrete", actions), frame_stack=stack, stacked=stacked)
    config = r2ac.Config(torso="resnet", feature_size=256, core=core, core_size=size, last_reward=True)
    network = r2ac.Network(config, spec)
    assert sum(weight.numel() for weight in network.parameters()) == count


def test_what_is_made_anew_is_not_stale_and_reaches_no_further_than_asked():
    life = whole_life(make(), ends=False)
    agent = make(trace_refresh=5)
    assert trains_on(agent).burn_in == 5
    before, work = states(agent, life), LearnerWork(agent, FROZEN, total_frames=10**9)
    for start in (5, 10, 15):
        unroll = cut(life, start, start + 5)
        unroll.core_state = before[start]
        unroll.before = cut(life, start - 5, start)
        unroll.before.core_state = before[start - 5]
        output = work.collect(unroll)
        assert output.metrics["trace_staleness"] == 0
        assert work.apply(unroll, output, output.total.detach(), output.count)
        agent.sensitivities.trained(unroll, work.updates)
    found = {name: weight.grad.clone() for name, weight in agent.network.named_parameters()}
    other = make()
    known, rest = by_unrolls(other, life, (10, 15, 20)), by_unrolls(make(), life, (10, 15))
    assert not torch.allclose(found["core.Z"], known["core.Z"] - rest["core.Z"])  # that reaches back to row 0
    short = make()
    work = LearnerWork(short, FROZEN, total_frames=10**9)
    for start in (10, 15):
        unroll = cut(life, start, start + 5)
        unroll.core_state = before[start]
        output = work.collect(unroll)
        assert work.apply(unroll, output, output.total.detach(), output.count)
        short.sensitivities.trained(unroll, work.updates)
    for name, weight in short.network.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, msg=name)


def test_refreshing_and_decaying_do_not_go_together():
    with pytest.raises(ValueError, match="means nothing to sensitivities that are made anew"):
        r2ac.Config(trace_refresh=5, trace_decay=0.5)
    with pytest.raises(ValueError, match="trace_refresh=-1"):
        r2ac.Config(trace_refresh=-1)


@pytest.mark.slow
@pytest.mark.parametrize("core", ["elstm-rtrl", "rtu"])
def test_compiled_it_is_the_same(core):
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        agent = r2ac.Agent(r2ac.Config(hidden_size=(8,), core=core, core_size=6), make_spec())
        life = whole_life(agent)
        config = replace(FROZEN, compile=compiled)
        work, before = LearnerWork(agent, config, total_frames=10**9), states(agent, life)
        for start in (0, 8, 16):
            unroll = cut(life, start, start + 8)
            unroll.core_state = before[start]
            output = work.collect(unroll)
            found.append({name: weight.grad.clone() for name, weight in agent.network.named_parameters()})
            assert work.apply(unroll, output, output.total.detach(), output.count)
            agent.sensitivities.trained(unroll, work.updates)
    for plain, other in zip(found[:3], found[3:], strict=True):
        for name, value in plain.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=name)
