"""CLEAR and LASER in IMPALA's loss: worked totals of each form, each mask by itself, gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from offbeat.agents import impala, r2ac
from offbeat.agents.impala import Agent, Config
from offbeat.agents.replay_terms import choose_rows
from offbeat.algorithms.laser import POINTS, gaussian_relevance, normal_points
from offbeat.algorithms.laser import relevance as laser_relevance
from offbeat.types import ActionSpec, LossOutput
from tests.agents.unrolls import BOX, DISCRETE, change, make_spec, make_unroll, with_episode_ends
from tests.agents.worked import inject, worked_batch
from tests.algorithms import worked as w
from tests.algorithms.worked import near, table

ALONE = {"baseline_cost": 0.0, "entropy_cost": 0.0}
PG, BASELINE, NEGENTROPY = 1.090303429, 6.163310045, -5.521835737
"""The worked losses without any mask."""


def make_agent(action: ActionSpec = DISCRETE, **options: Any) -> Agent:
    torch.manual_seed(0)
    return Agent(Config(hidden_size=(8,), **options), make_spec(action=action))


def loss_of(**options: Any) -> LossOutput:
    """Of the worked rows."""
    agent = make_agent(**options)
    batch = worked_batch(agent)
    inject(agent)
    return agent.loss(batch, 0.0)


def metric(output: LossOutput, name: str) -> float:
    return float(output.metrics[name])


def test_the_platforms_total_without_replay_terms() -> None:
    near(loss_of().total, 4.116740094, 1e-9)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_clear_clones_replayed_rows(reduction: Any) -> None:
    output = loss_of(policy_cloning_cost=0.01, value_cloning_cost=0.005, reduction=reduction)
    near(output.total, 4.116740094 + 0.01999789619 + 0.00245, 1e-9)
    count = 6 if reduction == "mean" else 1
    near(output.loss, (4.116740094 + 0.01999789619 + 0.00245) / count, 1e-9)
    assert metric(output, "policy_cloning_loss") == pytest.approx(1.999789619 / count)
    assert metric(output, "value_cloning_loss") == pytest.approx(0.49 / count)
    assert metric(output, "replayed_share") == 0.5


def test_the_platform_clones_all_rows_with_its_own_distances() -> None:
    output = loss_of(policy_cloning_cost=0.05, value_cloning_cost=0.005, cloning="platform")
    near(output.total, 4.116740094 + 0.104855706 + 0.003553168, 2e-9)


@pytest.mark.parametrize("b", [0.1, 0.3])
def test_laser_as_published(b: float) -> None:
    """The last row of the replayed stream counts nowhere, and its correction stays where it is."""
    output = loss_of(trust_region=b, **ALONE)
    near(output.total, -0.591543233, 1e-9)
    assert metric(output, "baseline_loss") == pytest.approx(2.446122088)
    rejected = Agent._evaluate(make_agent(), w.LOGITS, w.ACTION)[1][2, 1]
    assert metric(output, "entropy_loss") == pytest.approx(NEGENTROPY + float(rejected))
    near(loss_of(trust_region=b, entropy_cost=0.0).total, -0.591543233 + 0.5 * 2.446122088, 2e-9)
    shares = {name: metric(output, name) for name in ("kept_share", "kept_share_online", "kept_share_replayed")}
    assert shares == pytest.approx({"kept_share": 5 / 6, "kept_share_online": 1.0, "kept_share_replayed": 2 / 3})
    assert metric(output, "distance_replayed") == pytest.approx(float(w.RELEVANCE[:, 1].mean()), abs=1e-7)
    assert metric(output, "distance_online") == pytest.approx(float(w.RELEVANCE[:, 0].mean()), abs=1e-7)


@pytest.mark.parametrize(
    ("b", "policy", "baseline"), [(0.1, -0.623795303, 4.731581291), (0.3, 0.887507282, 5.450492045)]
)
def test_the_platforms_mask(b: float, policy: float, baseline: float) -> None:
    output = loss_of(trust_region=b, trust_region_form="platform", **ALONE)
    near(output.total, policy, 1e-9)
    assert metric(output, "baseline_loss") == pytest.approx(baseline)
    assert metric(output, "entropy_loss") == pytest.approx(NEGENTROPY), "the entropy counts all rows"
    assert metric(output, "distance_replayed") == pytest.approx(float(w.REVERSE[:, 1].mean()), abs=1e-7)


@pytest.mark.parametrize(("form", "distances"), [("laser", w.RELEVANCE), ("platform", w.REVERSE)])
def test_the_test_is_strict(form: Any, distances: Tensor) -> None:
    """A row that lies exactly at the bound is rejected."""
    agent = make_agent(trust_region=float(distances[0, 1]), trust_region_form=form)
    rows = choose_rows(agent.config, worked_batch(agent), distances)
    assert not rows.learnt[0, 1]
    assert rows.learnt.sum() == 4


def test_what_a_rejected_row_in_the_middle_stops() -> None:
    """``laser``: its own correction and those after it; ``platform``: those after it alone. Written out for one row."""
    distance = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    log_pi, log_mu = (x.log_softmax(-1).gather(-1, w.ACTION[..., None])[..., 0] for x in (w.LOGITS, w.BEHAVIOUR_LOGITS))
    ratio = (log_pi - log_mu).exp().clamp(max=1.0)
    delta = ratio * (w.REWARD + w.DISCOUNT * torch.cat([w.VALUE[1:], w.BOOTSTRAP_VALUE[None]]) - w.VALUE)
    for form, middle in (("laser", 0.0 * delta[1]), ("platform", delta[1])):
        agent = make_agent(trust_region=0.5, trust_region_form=form)
        batch = worked_batch(agent)
        rows = choose_rows(agent.config, batch, distance)
        targets = agent._targets(log_pi - log_mu, w.VALUE, w.BOOTSTRAP_VALUE, batch, rows)
        first = delta[0] + w.DISCOUNT[0] * ratio[0] * middle
        torch.testing.assert_close(targets.target - w.VALUE, torch.stack([first, middle, delta[2]]))


def test_cloning_and_a_trust_region_together() -> None:
    """Rejected rows are not cloned either, in both forms."""
    kept = torch.tensor([True, True, False])
    cloned = loss_of(trust_region=0.3, policy_cloning_cost=1.0, value_cloning_cost=1.0, **ALONE)
    near(cloned.total, -0.591543233 + w.FORWARD[kept, 1].sum() + table([0.09, 0.04]).sum(), 2e-8)
    options: Any = {"trust_region_form": "platform", "cloning": "platform"}
    cloned = loss_of(trust_region=0.3, policy_cloning_cost=1.0, value_cloning_cost=1.0, **options, **ALONE)
    squares = (w.VALUE - w.BEHAVIOUR_VALUE).square()
    distances = w.REVERSE.sum() - w.REVERSE[2, 1] + (squares.sum() - squares[2, 1]).sqrt()
    near(cloned.total, 0.887507282 + distances, 2e-8)


def test_entropy_of_online_rows_alone() -> None:
    near(loss_of().total - loss_of(entropy_cost=0.0).total, 0.01 * NEGENTROPY, 1e-9)
    online = loss_of(entropy_on="online")
    log_pi = w.LOGITS.log_softmax(-1)
    expected = float((log_pi.exp() * log_pi).sum(-1)[:, 0].sum())
    assert metric(online, "entropy_loss") == pytest.approx(expected)
    near(online.total, PG + 0.5 * BASELINE + 0.01 * expected, 1e-8)


def test_where_a_batch_does_not_say_what_is_replayed_nothing_is() -> None:
    agent = make_agent(policy_cloning_cost=1.0, value_cloning_cost=1.0, entropy_on="online")
    batch = worked_batch(agent, replayed=None)
    inject(agent)
    output = agent.loss(batch, 0.0)
    near(output.total, 4.116740094, 1e-9)
    assert metric(output, "policy_cloning_loss") == metric(output, "replayed_share") == 0.0


def test_gradients_come_from_rows_that_count() -> None:
    """Replayed rows alone are pulled towards what was; a rejected row moves nothing."""
    agent = make_agent(policy_cloning_cost=1.0, value_cloning_cost=1.0, **ALONE)
    batch = worked_batch(agent)
    network = inject(agent)
    plain = make_agent(**ALONE)
    other = inject(plain)
    agent.loss(batch, 0.0).total.backward()
    plain.loss(batch, 0.0).total.backward()
    assert network.policy.grad is not None and other.policy.grad is not None
    pull = network.policy.grad - other.policy.grad
    torch.testing.assert_close(pull[:3, 1], (w.LOGITS.softmax(-1) - w.BEHAVIOUR_LOGITS.softmax(-1))[:, 1])
    assert not pull[:, 0].any() and not pull[3].any()
    assert network.value.grad is not None
    torch.testing.assert_close(network.value.grad[:3, 1], 2 * (w.VALUE - w.BEHAVIOUR_VALUE)[:, 1])
    assert not network.value.grad[:, 0].any()

    strict = make_agent(trust_region=0.3, entropy_cost=0.01, policy_cloning_cost=1.0, value_cloning_cost=1.0)
    network = inject(strict)
    strict.loss(batch, 0.0).total.backward()
    assert network.policy.grad is not None and network.value.grad is not None
    assert not network.policy.grad[2, 1].any() and not network.value.grad[2, 1].any()
    assert network.policy.grad[:2].abs().sum(-1).all() and network.policy.grad[2, 0].any()


@pytest.mark.parametrize("form", ["laser", "platform"])
def test_what_stands_in_rows_that_are_no_transitions_does_not_matter(form: Any) -> None:
    options: Any = {
        "trust_region": 0.3,
        "trust_region_form": form,
        "policy_cloning_cost": 1.0,
        "value_cloning_cost": 1.0,
    }
    agent = make_agent(**options, cloning="platform" if form == "platform" else "clear")
    inputs, valid = with_episode_ends(agent.spec)
    batch = change(make_unroll(agent, inputs, valid), replayed=torch.ones(3, dtype=torch.bool))
    noise = ~valid[:-1]
    wild = {
        "behaviour_logits": torch.where(noise[..., None], 80 * torch.randn(7, 3, 3), batch.extras["behaviour_logits"]),
        "behaviour_value": torch.where(noise, torch.inf, batch.extras["behaviour_value"] + 1.0),
    }
    tame = batch.extras | {"behaviour_value": batch.extras["behaviour_value"] + 1.0}
    one, other = (agent.loss(change(batch, extras=extras), 0.0).total for extras in (wild, tame))
    assert torch.equal(one, other)
    one.backward()
    assert all(weight.grad.isfinite().all() for weight in agent.network.parameters())


def test_rows_hold_what_the_terms_need_and_no_more() -> None:
    assert set(make_agent().row_extras()) == {"behaviour_logits"}
    assert set(make_agent(BOX).row_extras()) == {"behaviour_log_prob"}
    assert set(make_agent(BOX, entropy_on="online").row_extras()) == {"behaviour_log_prob"}
    assert set(make_agent(policy_cloning_cost=1.0, trust_region=1.0).row_extras()) == {"behaviour_logits"}
    assert set(make_agent(value_cloning_cost=1.0).row_extras()) == {"behaviour_logits", "behaviour_value"}
    policy = {"behaviour_log_prob", "behaviour_mean", "behaviour_log_std"}
    assert set(make_agent(BOX, trust_region=1.0).row_extras()) == policy
    assert set(make_agent(BOX, policy_cloning_cost=1.0).row_extras()) == policy


def test_noted_values_and_policies_are_those_of_acting() -> None:
    agent = make_agent(BOX, policy_cloning_cost=1.0, value_cloning_cost=1.0)
    inputs, valid = with_episode_ends(agent.spec)
    batch = make_unroll(agent, inputs, valid)
    seen = agent._forward(batch.inputs, batch.core_state)
    torch.testing.assert_close(batch.extras["behaviour_value"], seen.value[:-1])
    torch.testing.assert_close(agent.behaviour_policy(batch), seen.policy[:-1])


def test_continuous_policies_are_cloned_and_bounded_in_closed_form() -> None:
    agent = make_agent(BOX, policy_cloning_cost=1.0, trust_region=1.0, **ALONE)
    inputs, valid = with_episode_ends(agent.spec)
    batch = change(make_unroll(agent, inputs, valid), replayed=torch.ones(3, dtype=torch.bool))
    with torch.no_grad():
        for weight in agent.network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    policy = agent.unrolled(batch).policy[:-1]
    (mean, log_std), (old, old_log_std) = policy.chunk(2, -1), agent.behaviour_policy(batch).chunk(2, -1)
    distance = gaussian_relevance(mean, log_std, old, old_log_std, normal_points(POINTS, 2))
    near_enough = float(distance.median())
    agent.config = replace(agent.config, trust_region=near_enough)
    kept = valid[:-1] & (distance < near_enough)
    assert 0 < kept.sum() < valid[:-1].sum()
    divergence = kl_divergence(Normal(old, old_log_std.exp()), Normal(mean, log_std.exp())).sum(-1)
    output = agent.loss(batch, 0.0)
    torch.testing.assert_close(output.metrics["policy_cloning_loss"], divergence[kept].sum().detach())
    assert metric(output, "kept_share") == pytest.approx(float(kept.sum() / valid[:-1].sum()))

    agent.config = replace(agent.config, trust_region_form="platform")
    reverse = kl_divergence(Normal(mean, log_std.exp()), Normal(old, old_log_std.exp())).sum(-1)
    platform = agent.loss(batch, 0.0)
    torch.testing.assert_close(platform.metrics["distance_replayed"], reverse[valid[:-1]].mean().detach())


def test_components_of_an_action_add_up() -> None:
    spec = make_spec(action=ActionSpec("multi_discrete", nvec=(2, 3), shape=(2,)))
    torch.manual_seed(0)
    agent = Agent(Config(hidden_size=(8,), policy_cloning_cost=1.0, trust_region=0.05, **ALONE), spec)
    logits, behaviour = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    batch = worked_batch(
        make_agent(), action=torch.ones(3, 2, 2, dtype=torch.int64), extras={"behaviour_logits": behaviour}
    )
    inject(agent, logits.double())
    parts = [slice(0, 2), slice(2, 5)]
    distance = sum(laser_relevance(logits[..., part], behaviour[..., part]) for part in parts)
    kept = distance < 0.05
    assert 0 < kept.sum() < 6
    kls = [
        torch.distributions.kl_divergence(
            *(torch.distributions.Categorical(logits=x[..., part]) for x in (behaviour, logits))
        )
        for part in parts
    ]
    output = agent.loss(batch, 0.0)
    expected = sum(kls)[:, 1][kept[:, 1]].sum()
    assert metric(output, "policy_cloning_loss") == pytest.approx(float(expected), rel=1e-5)
    assert metric(output, "kept_share") == pytest.approx(float(kept.float().mean()))


@pytest.mark.parametrize("core", ["elstm-rtrl", "lstm"])
def test_r2ac_has_the_same_terms(core: Any) -> None:
    torch.manual_seed(0)
    options: Any = {
        "policy_cloning_cost": 0.01,
        "value_cloning_cost": 0.005,
        "trust_region": 0.1,
        "entropy_on": "online",
    }
    agent = r2ac.Agent(r2ac.Config(hidden_size=(8,), core=core, core_size=4, **options), make_spec())
    inputs, valid = with_episode_ends(agent.spec)
    batch = change(make_unroll(agent, inputs, valid), replayed=torch.tensor([False, True, True]))
    output = agent.loss(batch, 0.0)
    output.total.backward()
    assert {"kept_share_replayed", "policy_cloning_loss", "value_cloning_loss"} <= set(output.metrics)
    assert metric(output, "kept_share") == 1.0


PUBLISHED = {"policy_cloning_cost": 0.01, "value_cloning_cost": 0.005, "trust_region": 0.1}
PLATFORM = {"policy_cloning_cost": 0.05, "value_cloning_cost": 0.005, "trust_region": 0.3, "cloning": "platform",
            "trust_region_form": "platform", "entropy_on": "online"}  # fmt: skip


@pytest.mark.parametrize(
    ("action", "options"),
    [
        (DISCRETE, PUBLISHED),
        *(pytest.param(*rest, marks=pytest.mark.slow) for rest in ((BOX, PUBLISHED), (DISCRETE, PLATFORM))),
    ],
)
def test_compiles_into_one_graph(action: ActionSpec, options: Any) -> None:
    agent = make_agent(action, **options)
    inputs, valid = with_episode_ends(agent.spec)
    batch = change(make_unroll(agent, inputs, valid), replayed=torch.tensor([False, True, True]))
    compiled = torch.compile(agent.loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch, 0.0).loss, agent.loss(batch, 0.0).loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["policy_cloning_cost", "value_cloning_cost", "trust_region"])
def test_config_says_what_is_out_of_range(name: str) -> None:
    for value in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"{name}={value} is out of range; allowed: 0 or above"):
            impala.Config(**{name: value})  # type: ignore[arg-type]
