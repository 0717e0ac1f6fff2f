"""The sum tree against a naive twin: a plain array, its cumulative sum and a search."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.sum_tree import SumTree


class NaiveTree:
    def __init__(self, size):
        self.weight = np.zeros(size)

    def set(self, index, weight):
        for i, w in zip(index, weight, strict=True):
            self.weight[i] = w

    def find(self, target):
        return [next(i for i in range(len(self.weight)) if self.weight[: i + 1].sum() > t) for t in target]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 65, 700])
def test_equals_its_naive_twin_under_random_operations(size):
    rng = np.random.default_rng(size)
    tree, twin = SumTree(size), NaiveTree(size)
    for _ in range(100):
        index = rng.integers(size, size=rng.integers(1, 40))
        # whole numbers: sums are exact in any order, so that both find the same leaf also at its edge
        weight = rng.integers(0, 5, size=len(index)).astype(float)
        tree.set(index, weight)
        twin.set(index, weight)
        np.testing.assert_array_equal(tree.leaves, twin.weight)
        assert tree.total == twin.weight.sum()
        assert tree.count == np.count_nonzero(twin.weight)
        if tree.count:
            target = rng.integers(0, int(tree.total), size=5) + rng.choice([0.0, 0.5], size=5)
            np.testing.assert_array_equal(tree.find(target), twin.find(target))


def test_equals_its_twin_over_100_000_single_operations():
    rng = np.random.default_rng(0)
    size = 5_000
    tree, weight = SumTree(size), np.zeros(size)
    for step in range(100_000):
        index, value = rng.integers(size), rng.random() * (rng.random() < 0.9)
        tree.set(np.array([index]), np.array([value]))
        weight[index] = value
        if step % 1_000 == 0:
            np.testing.assert_allclose(tree.total, weight.sum(), rtol=1e-13)
            target = rng.random(50) * tree.total * (1 - 1e-12)
            found = tree.find(target)
            ends = np.cumsum(weight)
            assert (target <= ends[found] + 1e-9).all() and (target >= (ends - weight)[found] - 1e-9).all()
            assert (weight[found] > 0).all()
    np.testing.assert_array_equal(tree.leaves, weight)


def test_the_tree_is_a_function_of_its_leaves():
    rng = np.random.default_rng(1)
    tree, other = SumTree(1_000), SumTree(1_000)
    for _ in range(200):
        tree.set(rng.integers(1_000, size=30), rng.random(30) * 10.0 ** rng.integers(-9, 9, size=30))
    other.load(tree.leaves.copy())
    np.testing.assert_array_equal(other._nodes, tree._nodes)
    assert other.count == tree.count


def test_the_reference_example():
    tree = SumTree(4)
    tree.set(np.arange(4), np.array([1.0, 2.0, 3.0, 4.0]))
    targets = (np.arange(2) + np.array([0.3, 0.8])) * tree.total / 2
    np.testing.assert_array_equal(targets, [1.5, 9.0])
    np.testing.assert_array_equal(tree.find(targets), [1, 3])


def test_no_leaf_of_weight_zero_is_ever_found_whatever_rounding_does():
    tree = SumTree(100)
    tree.set(np.array([3, 40, 41]), np.array([0.1, 0.2, 1e-17]))
    found = tree.find(np.array([0.0, 0.1, np.nextafter(tree.total, 0), tree.total, tree.total + 1e-9]))
    assert set(found.tolist()) <= {3, 40, 41}


def test_draws_are_stratified_and_in_proportion():
    rng = np.random.default_rng(2)
    tree = SumTree(50)
    weight = rng.random(50)
    tree.set(np.arange(50), weight)
    counts = np.zeros(50)
    for _ in range(2_000):
        drawn = tree.draw(20, rng)
        assert (np.diff(drawn) >= 0).all()  # one from each part, in order
        counts += np.bincount(drawn, minlength=50)
    expected = 40_000 * weight / weight.sum()
    # each draw's part is fixed, so counts vary less than independent draws would: 5 standard deviations of those
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_refuses_what_cannot_be_a_weight_and_changes_nothing():
    tree = SumTree(10)
    tree.set(np.array([2]), np.array([1.0]))
    for weight in (np.nan, np.inf, -1e-9):
        with pytest.raises(ValueError, match="finite and at least 0"):
            tree.set(np.array([1, 2]), np.array([3.0, weight]))
    for index in (-1, 10):
        with pytest.raises(IndexError, match="0 to 9"):
            tree.set(np.array([index]), np.array([1.0]))
    assert tree.total == 1.0
    with pytest.raises(ValueError, match="nothing to draw"):
        SumTree(3).find(np.array([0.0]))
