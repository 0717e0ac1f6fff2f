"""Annealing, the four strategies and the distances: worked numbers of the platform, and slow transcriptions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.algorithms.elite import DISTANCES, distance, multiplier, rank_correlation, select

DRAWS = ((7, 0.9, 1), (3, 0.2, 4), (11, 0.5, 1), (3, 0.2, 4), (20, 0.7, 2), (5, 0.1, 3), (14, 0.6, 1), (9, 0.4, 2),
         (2, 0.8, 1))  # fmt: skip
SLOTS, FAR, USED = (list(values) for values in zip(*DRAWS, strict=True))
Y = torch.tensor([[[0.2, -0.1, 0.4], [0.0, 0.5, -0.3]]], dtype=torch.float64)
X = torch.tensor([[[0.3, 0.1, 0.1], [-0.2, 0.4, 0.2]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("steps", "call", "expected", "of_5", "of_50"),
    [
        (10_000, 1, 5.99975, 29, 299),
        (10_000, 100, 5.975, 29, 298),
        (10_000, 10_000, 3.5, 17, 175),
        (10_000, 19_999, 1.00025, 5, 50),
        (10_000, 20_000, 1.0, 5, 50),
        (10_000, 10**7, 1.0, 5, 50),
        (70_000, 10_000, 5.642857143, 28, 282),
    ],
)
def test_the_multiplier_of_the_worked_numbers(steps: int, call: int, expected: float, of_5: int, of_50: int) -> None:
    found = multiplier(call, 6, steps, 2)
    assert found == pytest.approx(expected, rel=1e-9)
    assert (int(found * 5), int(found * 50)) == (of_5, of_50)


def test_the_multiplier_falls_step_by_step_as_the_platform_takes_it() -> None:
    slow = 4.0
    for call in range(1, 60):
        slow = max(1.0, slow - 3.0 / (20 * 1.5))
        assert multiplier(call, 4.0, 20, 1.5) == pytest.approx(slow, abs=1e-12)
    assert slow == 1.0


@pytest.mark.parametrize(
    ("strategy", "n", "expected"),
    [
        (1, 3, [5, 3, 3]),
        (2, 3, [5, 9, 14]),
        (3, 3, [11, 14, 2]),
        (4, 3, [5, 11, 14]),
        (1, 4, [5, 3, 3, 9]),
        (2, 4, [5, 9, 14, 2]),
        (3, 4, [11, 14, 2, 7]),
        (4, 4, [5, 11, 14, 2]),
        (3, 8, [11, 14, 2, 7, 9, 20, 5, 3]),
    ],
)
def test_selections_of_the_worked_numbers(strategy: int, n: int, expected: list[int]) -> None:
    assert select(strategy, SLOTS, FAR, USED, n) == expected


@pytest.mark.parametrize("strategy", [1, 2, 3, 4])
def test_nine_of_nine_draws_are_all_of_them(strategy: int) -> None:
    assert sorted(select(strategy, SLOTS, FAR, USED, 9)) == sorted(SLOTS)


@pytest.mark.parametrize("strategy", [1, 2, 3, 4])
def test_random_selections_are_those_of_a_slow_transcription_and_never_fail(strategy: int) -> None:
    rng = np.random.default_rng(strategy)
    short = 0
    for _ in range(400):
        kinds, m = int(rng.integers(1, 12)), int(rng.integers(1, 20))
        names = [f"slot {i}" for i in range(kinds)]
        far, used = rng.integers(0, 6, kinds) / 4, rng.integers(1, 4, kinds)
        drawn = rng.integers(0, kinds, m)
        for n in range(1, m + 1):
            got = select(strategy, [names[i] for i in drawn], far[drawn].tolist(), used[drawn].tolist(), n)
            assert got == [names[i] for i in slowly(strategy, drawn.tolist(), far, used, n)]
            short += len(set(drawn.tolist())) < n
    assert short > 100, "also where there are too few distinct ones"


def slowly(strategy: int, drawn: list[int], far: Any, used: Any, n: int) -> list[int]:
    """The reference's words, one after the other."""
    distinct: list[int] = []
    for i in drawn:
        if i not in distinct:
            distinct.append(i)
    for end in range(len(distinct), 0, -1):  # bubble sort, which is stable
        for at in range(end - 1):
            if far[distinct[at]] > far[distinct[at + 1]]:
                distinct[at], distinct[at + 1] = distinct[at + 1], distinct[at]
    if strategy == 1:
        out: list[int] = []
        for i in distinct:
            for _ in range(drawn.count(i)):
                if len(out) < n:
                    out.append(i)
        return out
    if strategy == 3:
        by_use: list[int] = []
        for uses in range(1 + int(max(used))):
            by_use += [i for i in distinct if used[i] == uses]
        distinct = by_use
    if len(distinct) < n:
        out = list(distinct)
        for i in distinct:
            for _ in range(drawn.count(i) - 1):
                if len(out) < n:
                    out.append(i)
        return out
    if strategy == 3:
        return distinct[:n]
    q, out = len(distinct) // n, []
    for g in range(n):
        best = distinct[g * q]
        if strategy == 4:
            for i in distinct[g * q : g * q + q]:
                if used[i] < used[best]:
                    best = i
        out.append(best)
    return out


def test_a_distance_that_is_no_number_is_the_farthest() -> None:
    assert select(1, [1, 2, 3], [math.nan, 2.0, 1.0], [1, 1, 1], 2) == [3, 2]


@pytest.mark.parametrize(
    ("name", "p", "expected"),
    [
        ("ln_norm", 1, 1.4),
        ("ln_norm", 2, 0.663324958),
        ("ln_norm", 3, 0.553965826),
        ("cosine", 2, 0.475781348),
        ("kl", 2, 0.066145021),
    ],
)
def test_distances_of_the_worked_numbers(name: str, p: float, expected: float) -> None:
    assert distance(name, X, Y, p).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("name", "expected"), [("ln_norm", 0.479583152), ("kl", 0.035272084)])
def test_the_attentive_query_of_the_worked_numbers(name: str, expected: float) -> None:
    query = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    assert distance(name, X, query.expand_as(X)).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DISTANCES)
def test_many_items_at_once_are_each_by_itself(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 4, 3, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    x.requires_grad_()
    got = distance(name, x, y, 3)
    assert got.shape == (5,) and got.dtype == dtype and not got.requires_grad
    for m in range(5):
        assert got[m].item() == pytest.approx(slow_distance(name, x[m].tolist(), y[m].tolist(), 3), rel=1e-5)
    assert distance(name, y, y, 3).abs().max() < 1e-6
    padded = [torch.cat([value.detach(), torch.zeros(5, 2, 3, dtype=dtype)], 1) for value in (x, y)]
    assert torch.allclose(distance(name, *padded, 3), got), "rows of zeros add nothing"


def slow_distance(name: str, x: list[list[float]], y: list[list[float]], p: float) -> float:
    pairs = [(a, b) for row, other in zip(x, y, strict=True) for a, b in zip(row, other, strict=True)]
    if name == "ln_norm":
        return sum(abs(a - b) ** p for a, b in pairs) ** (1 / p)
    if name == "cosine":
        return 1 - sum(a * b for a, b in pairs) / (
            math.sqrt(sum(a * a for a, _ in pairs)) * math.sqrt(sum(b * b for _, b in pairs))
        )
    total = 0.0
    for row, other in zip(x, y, strict=True):
        one, two = sum(math.exp(a) for a in row), sum(math.exp(b) for b in other)
        total += sum(math.exp(a) / one * math.log(math.exp(a) / one / (math.exp(b) / two)) for a, b in zip(row, other))
    return total


def test_the_largest_power_is_the_largest_difference_and_no_length_has_no_direction() -> None:
    assert distance("ln_norm", X, Y, math.inf).item() == pytest.approx(0.5)
    assert distance("cosine", torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)).item() == 1.0


def test_forbidden_actions_add_nothing_to_the_kl() -> None:
    x, y = (torch.cat([value, torch.full((1, 2, 1), -1e30, dtype=torch.float64)], -1) for value in (X, Y))
    assert distance("kl", x, y).item() == pytest.approx(0.066145021, abs=1e-9)


def test_rank_correlations() -> None:
    one = torch.tensor([3.0, 1.0, 2.0, 10.0])
    assert rank_correlation(one, one.exp()) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    assert rank_correlation(torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([5.0, 6, 7, 8, 7])) == pytest.approx(
        0.8207826816681233
    )
    assert math.isnan(rank_correlation(one[:1], one[:1]))
    assert math.isnan(rank_correlation(one, torch.ones(4)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: multiplier(0, 6, 10, 2), "call: expected at least 1, got 0"),
        (lambda: multiplier(1, 0.5, 10, 2), "initial: expected 1 or above, got 0.5"),
        (lambda: multiplier(1, 6, 0, 2), "steps: expected at least 1, got 0"),
        (lambda: multiplier(1, 6, 10, 0), "alpha: expected above 0, got 0"),
        (lambda: select(5, [1], [0.0], [1], 1), "strategy: expected 1, 2, 3 or 4, got 5"),
        (lambda: select(1, [1, 2], [0.0], [1, 1], 1), "expected equal lengths, got 2, 1, 2"),
        (lambda: select(1, [1, 2], [0.0, 1.0], [1, 1], 3), "n: expected 1 to 2, the number of slots, got 3"),
        (lambda: distance("cos", X, Y), "name: expected one of ln_norm, cosine, kl, got 'cos'"),
        (lambda: distance("kl", X, Y, 0.5), "p: expected 1 or above, got 0.5"),
        (lambda: distance("kl", X, Y[:, :1]), r"y: expected shape \[1, 2, 3\], got \[1, 1, 3\]"),
        (lambda: distance("kl", X[0], Y[0]), r"x: expected 3 axes \[M, T, F\], got shape \[2, 3\]"),
        (lambda: rank_correlation(X[0, 0], Y[0, 0, :2]), r"other: expected shape \[3\], got \[2\]"),
    ],
)
def test_arguments_out_of_range_are_named(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
