"""Samplers of somebody else's: what they choose wrongly is said with their name, and they are asked once ready."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offbeat.replay.mixture import Mixture
from offbeat.replay.sampler import Sampler, Selection
from offbeat.replay.streams import StreamStore
from tests.replay.twin import Twin, vector_layout

COUNT = 4


def filled() -> StreamStore:
    """Three streams of some rows."""
    layout = vector_layout(core_state={})
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    for stream in range(layout.num_streams):
        for _ in range(3):
            for _ in range(layout.block):
                twin.step(stream)
            store.append(twin.block([stream], layout.block))
    return store


class Stranger(Sampler):
    """Chooses what a test says."""

    def __init__(self, is_ready: Any = True, **wrong: Any) -> None:
        self.is_ready, self.wrong, self.asked = is_ready, wrong, 0

    def ready(self, count: int) -> bool:
        return bool(self.is_ready)

    def missing(self, count: int) -> str:
        return "" if self.is_ready else "patience"

    def select(self, count: int) -> Selection | None:
        self.asked += 1
        zeros = np.zeros(count, np.int64)
        fields = {"stream": zeros, "row": np.arange(3, 3 + count), "source": zeros}
        fields |= {name: value(count) if callable(value) else value for name, value in self.wrong.items()}
        return Selection(**fields)


def mixture(sampler: Sampler) -> Mixture:
    return Mixture(filled(), [sampler], [COUNT], last=False)


def test_what_it_chooses_is_read() -> None:
    batch = mixture(Stranger()).sample()
    assert batch is not None and batch.row.tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"stream": lambda n: np.zeros(n - 1, np.int64)}, r"select\(4\).stream: expected int64\[4\], got int64\[3\]"),
        ({"row": lambda n: np.zeros(n)}, r"select\(4\).row: expected int64\[4\], got float64\[4\]"),
        ({"row": [1, 2, 3, 4]}, r"select\(4\).row: expected int64\[4\], got list"),
        ({"source": lambda n: np.full(n, 7)}, r"source must be 0, its place, got \[7, 7, 7, 7\]"),
        ({"stream": lambda n: np.full(n, -1)}, "there is no row 3 of stream -1; there are 3 streams with the heads"),
        ({"stream": lambda n: np.full(n, 3)}, "there is no row 3 of stream 3"),
        ({"row": lambda n: np.full(n, 1015)}, r"there is no row 1015 of stream 0; .* heads \[15, 15, 15\]"),
        ({"row": lambda n: np.full(n, 15)}, "there is no row 15 of stream 0"),
        ({"row": lambda n: np.full(n, -5)}, "there is no row -5 of stream 0"),
    ],
)
def test_what_it_chooses_wrongly_is_said_with_its_name(wrong: dict[str, Any], says: str) -> None:
    name = r"sampler tests\.replay\.test_strangers\.Stranger \(replay\.samplers\.0\): select.*"
    with pytest.raises(RuntimeError, match=name + says.removeprefix("select")):
        mixture(Stranger(**wrong)).sample()


def test_it_is_not_asked_before_it_is_ready() -> None:
    sampler = Stranger(is_ready=False)
    drawn = mixture(sampler)
    assert drawn.sample() is None and sampler.asked == 0
    assert drawn.missing() == "patience"
    sampler.is_ready = True
    assert drawn.sample() is not None


def test_one_that_is_ready_and_gives_nothing_is_what_a_run_waits_for() -> None:
    drawn = mixture(Nothing())
    assert drawn.sample() is None
    assert drawn.missing() == ("nothing: a batch is ready, as its samplers say; one may select nothing all the same")


class Nothing(Stranger):
    """Says ready and has nothing."""

    def select(self, count: int) -> Selection | None:
        return None
