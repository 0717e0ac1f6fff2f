"""The copy task as it is described: what is shown, what is scored, and that a core learns it by an exact gradient."""

from __future__ import annotations

import json

import pytest
import torch

from offbeat.bench import copy_task
from offbeat.bench.copy_task import BLANK, CopyConfig, CopyNetwork, diagnose_copy, draw, learn, score, train
from offbeat.errors import UserError


def test_sequences_are_bits_then_blanks_and_the_bits_are_asked_for_under_the_blanks():
    shown, said, scored = draw(torch.Generator().manual_seed(0), 500, 4)
    counts = set()
    for b in range(500):
        n = int((shown[:, b] != BLANK).sum())
        counts.add(n)
        assert (shown[:n, b] != BLANK).all()
        assert torch.equal(said[n : 2 * n, b], shown[:n, b])
        assert scored[:, b].nonzero().flatten().tolist() == list(range(n, 2 * n))
        assert (said[~scored[:, b], b] == BLANK).all()
    assert counts == {1, 2, 3, 4}
    assert {int(bit) for bit in said[scored]} == {0, 1}  # both bits are scored


def test_a_network_that_knows_the_answer_is_right_and_one_that_says_a_bit_is_half_right(monkeypatch):
    config = CopyConfig(length=3)
    network = CopyNetwork(config)
    answers = {}

    def answer(tokens, state, first):
        return torch.nn.functional.one_hot(answers["said"], 3).float() * 5, state

    def remembered(*arguments):
        made = draw(*arguments)
        answers["said"] = made[1]
        return made

    monkeypatch.setattr(copy_task, "draw", remembered)
    monkeypatch.setattr(network, "forward", answer)
    assert score(network, torch.Generator(), config, 400) == (1.0, 1.0)
    monkeypatch.setattr(network, "forward", lambda tokens, s, f: (torch.eye(3)[torch.zeros_like(tokens)], s))
    copied, bits = score(network, torch.Generator(), config, 4000)
    assert bits == pytest.approx(0.5, abs=0.03)
    assert copied == pytest.approx((1 / 2 + 1 / 4 + 1 / 8) / 3, abs=0.03)


@pytest.mark.parametrize("core", ["elstm-rtrl", "rtu"])
def test_the_gradient_of_a_sequence_does_not_depend_on_the_unrolls(core):
    found = []
    for unroll, kind in ((1, core), (3, core), (8, core), (8, core.replace("-rtrl", "") + "-tbptt")):
        config = CopyConfig(core=kind, length=4, size=8, unroll=unroll)  # type: ignore[arg-type]
        torch.manual_seed(0)
        network = CopyNetwork(config)
        steps = []
        optimiser = torch.optim.SGD(network.parameters(), 0.0)
        optimiser.zero_grad = lambda steps=steps, network=network: steps.append(  # type: ignore[assignment,misc]
            [weight.grad.clone() for weight in network.parameters()]
        )
        made, _ = train(network, optimiser, config, draw(torch.Generator().manual_seed(1), 16, 4))
        assert made == len(steps) == 1
        found.append(steps[0])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)


def test_updates_per_token_are_one_for_each_unroll_with_something_to_say():
    config = CopyConfig(length=4, size=8, update="token")
    network = CopyNetwork(config)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    batch = draw(torch.Generator().manual_seed(1), 64, 4)
    made, _ = train(network, optimiser, config, batch)
    assert made == int(batch[2].any(1).sum())


def test_it_is_learnt_by_rtrl_and_not_so_soon_by_a_truncated_gradient():
    options = {"length": 2, "size": 32, "learning_rate": 1e-2, "minutes": 4.0, "accuracy": 0.97}
    rtrl = list(learn(CopyConfig(**options)))[-1]  # type: ignore[arg-type]
    assert rtrl.copied > 0.95
    truncated = learn(CopyConfig(core="elstm-tbptt", **options))  # type: ignore[arg-type]
    then = next(look for look in truncated if look.updates >= rtrl.updates or look.copied >= 0.97)
    assert then.copied < rtrl.copied - 0.05


def test_what_came_of_it_is_printed_and_written(tmp_path, capsys):
    config = CopyConfig(core="lstm", length=1, size=16, learning_rate=3e-2, minutes=0.5, accuracy=0.9)
    look = diagnose_copy(config, tmp_path / "copy.json")
    said = capsys.readouterr().out
    assert "copying up to 1 bits by lstm of width 16" in said
    assert f"10,000 fresh sequences: {look.copied:.2%} without a mistake" in said
    written = json.loads((tmp_path / "copy.json").read_text())
    assert written["config"]["core"] == "lstm"
    assert written["looks"][-1]["copied"] == look.copied >= 0.88


def test_refuses_what_cannot_be():
    with pytest.raises(UserError, match=r"core='gru' is not allowed; choose one of: elstm-rtrl, elstm-tbptt, rtu"):
        CopyConfig(core="gru")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="length=0"):
        CopyConfig(length=0)
    with pytest.raises(UserError, match=r"accuracy=1\.5"):
        CopyConfig(accuracy=1.5)
