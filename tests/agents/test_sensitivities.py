"""What happens to the sensitivities of a stream: it goes on, has gaps, is cut by a dying actor, is saved, grows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from offbeat.agents.sensitivities import Sensitivities
from offbeat.networks.elstm import ELSTM

T = 4


def make(decay: float = 1.0) -> tuple[ELSTM, Sensitivities]:
    """A core and its sensitivities, with the same weights each time."""
    torch.manual_seed(0)
    core = ELSTM(3, 5)
    return core, Sensitivities(core, decay)


def unroll(streams: list[int], rows: list[int], replayed: list[bool] | None = None, **changes: Any) -> Any:
    """What sensitivities look at of a batch; inputs that only depend on stream and row."""
    batch = len(streams)
    x = torch.stack([torch.sin(torch.arange(3.0 * (T + 1)).view(T + 1, 3) + 7 * s + 3 * r)
                     for s, r in zip(streams, rows, strict=True)], 1)  # fmt: skip
    made = SimpleNamespace(
        stream=torch.tensor(streams),
        row=torch.tensor(rows),
        replayed=None if replayed is None else torch.tensor(replayed),
        action=torch.zeros(T, batch),
        inputs=SimpleNamespace(first=torch.zeros(T + 1, batch, dtype=torch.bool)),
        valid=torch.ones(T + 1, batch, dtype=torch.bool),
        terminated=torch.zeros(T, batch, dtype=torch.bool),
        truncated=torch.zeros(T, batch, dtype=torch.bool),
        x=x,
    )
    for name, (t, b) in changes.items():
        value = made.inputs.first if name == "first" else getattr(made, name)
        value[t, b] = name != "valid"
    return made


def train(core: ELSTM, kept: Sensitivities, batch: Any, updates: int, stands: bool = True) -> None:
    """One update with ``batch``, which may be skipped."""
    followed = kept.begin(batch)
    carry = {"c": torch.zeros(len(batch.stream), 5)}
    _, _, followed.steps = core.follow(batch.x, carry, batch.inputs.first, followed.trace, followed.at, T)
    if stands:
        kept.trained(batch, updates)


def trace(kept: Sensitivities, stream: int) -> torch.Tensor:
    return kept.state()["trace/c.Z"][stream]


def test_a_stream_that_goes_on_keeps_what_it_has():
    core, kept = make()
    train(core, kept, unroll([0, 1], [0, 0]), 1)
    one = trace(kept, 0).clone()
    train(core, kept, unroll([0, 1], [T, T]), 2)
    assert kept.gaps == 0
    fresh_core, fresh = make()
    train(fresh_core, fresh, unroll([0, 1], [T, T]), 1)
    assert not torch.allclose(trace(kept, 0), trace(fresh, 0))
    assert one.any()
    kept.begin(unroll([0, 1], [2 * T, 2 * T]))
    assert kept.spans().tolist() == [2, 2]


def test_the_order_of_streams_in_a_batch_does_not_matter():
    core, kept = make()
    other_core, other = make()
    for updates, rows in enumerate((0, T, 2 * T)):
        train(core, kept, unroll([0, 1, 2], [rows] * 3), updates + 1)
        train(other_core, other, unroll([2, 0, 1], [rows] * 3), updates + 1)
    for name, value in kept.state().items():
        torch.testing.assert_close(other.state()[name], value, msg=name)


def test_a_gap_resets_its_stream_and_is_counted():
    core, kept = make()
    train(core, kept, unroll([0, 1], [0, 0]), 1)
    train(core, kept, unroll([0, 1], [T, 2 * T]), 2)  # of stream 1 one was left out
    assert kept.gaps == 1
    fresh_core, fresh = make()
    train(fresh_core, fresh, unroll([0, 1], [T, 2 * T]), 1)
    torch.testing.assert_close(trace(kept, 1), trace(fresh, 1))
    assert not torch.allclose(trace(kept, 0), trace(fresh, 0))
    kept.begin(unroll([0, 1], [2 * T, 3 * T]))
    assert kept.spans().tolist() == [2, 1]


def test_a_gap_ends_what_is_not_finite():
    core, kept = make()
    train(core, kept, unroll([0, 1], [0, 0]), 1)
    kept.begin(unroll([0, 1], [T, T])).trace["c.Z"][1] = torch.nan  # its update is skipped, as its gradient is
    train(core, kept, unroll([0, 1], [2 * T, 2 * T]), 2)
    assert kept.gaps == 2
    assert all(values.isfinite().all() for values in kept.state().values())


def test_an_update_that_did_not_stand_is_a_gap():
    core, kept = make()
    train(core, kept, unroll([0], [0]), 1)
    train(core, kept, unroll([0], [T]), 1, stands=False)
    train(core, kept, unroll([0], [2 * T]), 2)
    assert kept.gaps == 1


def test_an_episodes_start_is_no_gap_and_makes_them_young():
    core, kept = make()
    train(core, kept, unroll([0], [0]), 1)
    train(core, kept, unroll([0], [T], terminated=(0, 0), valid=(1, 0), first=(2, 0)), 2)
    assert (kept.gaps, kept.restarts) == (0, 0)
    kept.begin(unroll([0], [2 * T]))
    assert kept.spans().tolist() == [1]


@pytest.mark.parametrize("at", [0, 2])
def test_an_episode_that_was_cut_by_a_dying_actor_is_counted(at):
    core, kept = make()
    train(core, kept, unroll([0, 1], [0, 0]), 1)
    train(core, kept, unroll([0, 1], [T, T], valid=(at, 1), first=(at + 1, 1)), 2)
    assert (kept.gaps, kept.restarts) == (0, 1)
    train(core, kept, unroll([0, 1], [2 * T, 2 * T], terminated=(T - 1, 0)), 3)
    train(core, kept, unroll([0, 1], [3 * T, 3 * T], valid=(0, 0), first=(1, 0)), 4)  # that of stream 0 had ended
    assert kept.restarts == 1


def test_replayed_columns_neither_use_nor_change_them():
    core, kept = make()
    train(core, kept, unroll([0, 1], [0, 0]), 1)
    before = {name: value.clone() for name, value in kept.state().items()}
    followed = kept.begin(unroll([0, 1, 1], [T, 0, 0], [False, True, True]))
    assert followed.at == [0, -1, -1]
    assert kept.spans().tolist() == [1]
    train(core, kept, unroll([0, 1, 1], [T, 0, 0], [False, True, True]), 2)
    assert torch.equal(trace(kept, 1), before["trace/c.Z"][1])
    assert kept.gaps == 0


def test_two_unrolls_of_one_stream_are_refused():
    _, kept = make()
    with pytest.raises(RuntimeError, match=r"two unrolls of one stream \(streams \[3, 3\]\).* one fifo"):
        kept.begin(unroll([3, 3], [0, T]))


def test_they_decay():
    core, kept = make(0.5)
    train(core, kept, unroll([0], [0]), 1)
    before = trace(kept, 0).clone()
    assert torch.equal(kept.begin(unroll([0], [T])).trace["c.Z"][0], 0.5 * before)


def test_saved_and_loaded_they_go_on_as_they_were():
    core, kept = make()
    train(core, kept, unroll([0, 5], [0, 0]), 1)
    train(core, kept, unroll([0, 5], [T, 3 * T], terminated=(T - 1, 0)), 2)
    other_core, other = make()
    train(other_core, other, unroll([7], [0]), 1)
    other.load_state({name: value.clone() for name, value in kept.state().items()})
    assert other.state().keys() == kept.state().keys()
    for one, two in ((core, kept), (other_core, other)):
        train(one, two, unroll([0, 5], [2 * T, 4 * T], valid=(0, 0), first=(1, 0)), 3)
    for name, value in kept.state().items():
        assert torch.equal(other.state()[name], value), name
    assert (other.gaps, other.restarts, other.updates) == (1, 0, 3)


def test_before_the_first_batch_the_same_arrays_are_saved_with_no_rows():
    core, kept = make()
    before = kept.state()
    train(core, kept, unroll([0, 1], [0, 0]), 1)
    assert before.keys() == kept.state().keys()
    assert all(len(values) == 0 for name, values in before.items() if name != "counts")
    _, other = make()
    other.load_state(before)
    train(core, other, unroll([0, 1], [0, 0]), 1)
    assert torch.equal(trace(other, 1), trace(kept, 1))
