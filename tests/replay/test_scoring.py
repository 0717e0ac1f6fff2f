"""Samplers that score: a naive twin of their draws, cached scores, annealing, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offbeat.algorithms import elite
from offbeat.replay.elite import Config
from offbeat.replay.sampler import Place
from offbeat.replay.scoring import CHECK_EVERY, Scored, ScoredConfig
from tests.replay.encoders import SmallEncode
from tests.replay.test_copies import place_of
from tests.replay.test_fifo import grow
from tests.replay.twin import Twin, TwinReader, image_layout


class Table:
    """A ruler that knows the distances: of (stream, row) with these weights. Counts what it is asked."""

    def __init__(self, encode: SmallEncode) -> None:
        self.encode, self.asked, self.began, self.gone = encode, list[tuple[int, int]](), 0, set[tuple[int, int]]()

    def far(self, stream: int, row: int, weights: int) -> float:
        """Any number."""
        return float(np.float32((7 * stream + 3 * row + 5 * weights) % 11 / 7))

    def begin(self) -> None:
        self.began += 1

    def measure(self, stream: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        names = list(zip(stream.tolist(), row.tolist(), strict=True))
        assert len(set(names)) == len(names), "each once"
        self.asked += names
        values = np.array([[self.far(*name, self.encode.weights), -1.0] for name in names], np.float32)
        return values, np.array([name not in self.gone for name in names]), self.encode.weights

    def distances(self, values: np.ndarray) -> np.ndarray:
        assert (values[:, 1] == -1).all()
        return values[:, 0].astype(np.float64)

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        pass


def build(seed: int = 0, rng: int = 5, **options: Any) -> tuple[Scored, Place, Twin, Table]:
    """Streams that are empty."""
    place = place_of(image_layout(capacity=40))
    encode = SmallEncode(core=True)
    place = replace(place, rng=np.random.default_rng(rng), encode=encode)
    ruler = Table(encode)
    return Scored(Config(**options), place, ruler), place, Twin(place.store.layout, np.random.default_rng(seed)), ruler


class NaiveScored:
    """The same in dictionaries."""

    def __init__(self, config: ScoredConfig, ruler: Table, seed: int) -> None:
        self.config, self.ruler, self.rng = config, ruler, np.random.default_rng(seed)
        self.calls = 0
        self.used: dict[tuple[int, int], int] = {}
        self.scores: dict[tuple[int, int], tuple[float, int]] = {}

    def select(
        self, reader: TwinReader, heads: list[int], n: int
    ) -> tuple[list[tuple[int, int]], set[tuple[int, int]]]:
        """What is chosen, and what had to be scored for it."""
        self.calls += 1
        lambda_ = self.config.multiplier
        if self.config.anneal_calls:
            down = self.calls * (lambda_ - 1) / (self.config.anneal_calls * self.config.anneal_factor)
            lambda_ = max(1.0, lambda_ - down)
        m = int(lambda_ * n)
        per_stream = -(-self.config.window // 3) or 40
        all_ = [(s, t) for s, head in enumerate(heads) for t in range(0, head - 4, 5) if t >= head - per_stream]
        drawn: list[tuple[int, int]] = []
        while len(drawn) < m:
            names = [all_[i] for i in self.rng.integers(len(all_), size=2 * m)]
            drawn += [(s, t) for s, t in names if reader.unroll(s, t, 5) is not None]
        drawn = drawn[:m]
        new: set[tuple[int, int]] = set()
        if m > n:
            now = self.ruler.encode.weights
            for name in set(drawn):
                if name not in self.scores or now - self.scores[name][1] >= self.config.score_max_age:
                    new.add(name)
                    self.scores[name] = self.ruler.far(*name, now), now
            far, used = [self.scores[name][0] for name in drawn], [self.used.get(name, 1) for name in drawn]
            drawn = elite.select(self.config.strategy, drawn, far, used, n)
        for name in drawn:
            self.used[name] = self.used.get(name, 1) + 1
        return drawn, new


@pytest.mark.parametrize("strategy", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "options", [{"score_max_age": 3}, {"anneal_calls": 30, "window": 70}, {"anneal_calls": 0, "multiplier": 2.5}]
)
def test_it_chooses_what_its_naive_twin_chooses(strategy: int, options: dict[str, Any]) -> None:
    options = {"strategy": strategy, "multiplier": 3.0, "min_rows": 30} | options
    sampler, place, twin, ruler = build(seed=strategy, **options)
    naive = NaiveScored(sampler.config, ruler, 5)
    rng, reader, drawn, hits = np.random.default_rng(strategy), TwinReader(twin, True), 0, 0
    for turn in range(120):
        grow(place.store, twin, int(rng.integers(3)), int(rng.integers(1, 6)))
        if turn % 25 == 24:  # somebody else goes on
            other = Scored(sampler.config, replace(place, rng=np.random.default_rng(77)), ruler)
            other.load_state(sampler.state())
            for name, value in sampler.state().items():
                np.testing.assert_array_equal(value, other.state()[name], name)
            sampler = other
        ruler.encode.weights += int(rng.integers(2))
        ruler.asked.clear()
        if not sampler.ready(4):
            assert sampler.select(4) is None and place.store.stored.sum() < 35
            continue
        got, (want, new) = sampler.select(4), naive.select(reader, place.store.head.tolist(), 4)
        assert got is not None
        assert list(zip(got.stream.tolist(), got.row.tolist(), strict=True)) == want
        assert got.source.tolist() == [3] * 4
        if naive.calls % CHECK_EVERY:
            assert sorted(ruler.asked) == sorted(new)
        hits += sampler.hits > 0
        drawn += 1
    assert drawn > 90
    assert (hits > 20) == ("score_max_age" in options)
    assert max(naive.used.values()) > 3


def test_without_more_candidates_it_is_uniform_and_scores_nothing() -> None:
    sampler, place, twin, ruler = build(multiplier=1.0)
    for _ in range(9):
        for s in range(3):
            grow(place.store, twin, s, 5)
    reader = TwinReader(twin, True)
    allowed = [(s, t) for s in range(3) for t in range(0, 45, 5) if reader.unroll(s, t, 5) is not None]
    counts = dict.fromkeys(allowed, 0)
    got = sampler.select(6000)
    assert got is not None
    for name in zip(got.stream.tolist(), got.row.tolist(), strict=True):
        counts[name] += 1
    expected = 6000 / len(allowed)
    assert (
        sum((count - expected) ** 2 / expected for count in counts.values())
        < len(allowed) + 4 * (2 * len(allowed)) ** 0.5
    )
    assert not ruler.asked and not ruler.began
    assert sampler.stats()["candidates_3"] == 1


def test_what_was_overwritten_while_it_was_read_is_the_farthest_and_not_kept() -> None:
    sampler, place, twin, ruler = build(multiplier=4.0, anneal_calls=0, strategy=1, score_max_age=100)
    for _ in range(6):
        for s in range(3):
            grow(place.store, twin, s, 5)
    ruler.gone = {(s, t) for s in range(3) for t in range(0, 30, 5) if (s, t) != (1, 20)}
    for _ in range(40):
        got = sampler.select(1)
        assert got is not None
        names = set(ruler.asked)
        ruler.asked.clear()
        if (1, 20) in names:
            assert (int(got.stream[0]), int(got.row[0])) == (1, 20)
    at = np.flatnonzero(sampler.books.version >= 0)
    assert [tuple(int(part[0]) for part in sampler.books.names(at))] == [(1, 20)]


def test_it_says_how_cached_scores_rank_beside_fresh_ones() -> None:
    sampler, place, twin, ruler = build(multiplier=6.0, anneal_calls=0, score_max_age=1000)
    for _ in range(7):
        for s in range(3):
            grow(place.store, twin, s, 5)
    for _ in range(CHECK_EVERY):
        assert "score_correlation_3" not in sampler.stats()
        sampler.select(5)
    assert sampler.stats()["score_correlation_3"] == pytest.approx(1.0)
    assert sampler.stats()["score_age_3"] == 0
    ruler.encode.weights = 4
    for _ in range(CHECK_EVERY):
        sampler.select(5)
    assert -1 <= sampler.stats()["score_correlation_3"] < 0.9
    assert sampler.stats()["score_hits_3"] == 1
    assert sampler.stats()["score_age_3"] == 4


def test_it_waits_for_rows_and_for_weights() -> None:
    sampler, place, twin, ruler = build(min_rows=12)
    grow(place.store, twin, 0, 4)
    assert sampler.missing(1).startswith("min_rows=12 rows stored; 4 are")
    for s in (0, 1, 2):
        grow(place.store, twin, s, 4)
    ruler.encode.published = False
    assert sampler.missing(1) == "the first weights" and sampler.select(1) is None
    ruler.encode.published = True
    assert sampler.ready(1) and sampler.missing(1) == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"strategy": 5}, "strategy=5 is out of range; allowed: 1, 2, 3, 4"),
        ({"p": 0.5}, "p=0.5 is out of range; allowed: 1 or above"),
        ({"multiplier": 0.0}, "multiplier=0.0 is out of range; allowed: 1 or above"),
        ({"anneal_factor": 0.0}, "anneal_factor=0.0 is out of range; allowed: above 0"),
        (
            {"window": 30},
            "elite replay: a window of 30 rows is 10 rows per stream, a whole unroll with .* needs 12; keep 36",
        ),
        ({"score_rows": 6}, "score_rows=6 is more than the 5 rows of an unroll"),
        ({"min_rows": 121}, "min_rows=121 is more than the 120 rows kept"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build(**options)
