"""Frame stacks while acting."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.stacking import FrameStacker, stack_rows
from offbeat.types import ActionSpec, ArraySpec, EnvSpec
from tests.replay.twin import LAYOUTS, Twin


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.parametrize("padding", ["zero", "repeat"])
def test_acting_sees_the_twins_stacks(name: str, padding: str) -> None:
    rng = np.random.default_rng(0)
    layout = LAYOUTS[name](stack_padding=padding)
    twin, stacker = Twin(layout, rng), FrameStacker(layout, 3)
    for turn in range(60):
        ids = np.arange(3) if turn == 0 else rng.permutation(3)[: rng.integers(1, 4)]
        if turn:
            for s in ids:
                twin.step(s)
        opened = [twin.streams[s].open for s in ids]
        frames = {key: np.array([row[f"observation/{key}"] for row in opened]) for key in layout.observation}
        seen = stacker.push(ids, frames, np.array([row["first"] for row in opened]))
        assert seen.keys() == layout.observation.keys()
        for key, values in seen.items():
            want = np.array([row["seen"][key] for row in opened])
            assert values.dtype == np.dtype(layout.observation[key].dtype)
            assert np.array_equal(values, want)
        if turn == 30:
            saved, stacker = stacker.state(), FrameStacker(layout, 3)
            stacker.load_state(saved)


def test_a_hand_made_stack() -> None:
    spec = EnvSpec("toy", {"observation": ArraySpec((1, 1), "uint8")}, ActionSpec("discrete", 2), 3, ("observation",))
    for padding, want in (("zero", [[0, 0, 1], [0, 1, 2], [0, 0, 3]]), ("repeat", [[1, 1, 1], [1, 1, 2], [3, 3, 3]])):
        stacker = FrameStacker(EnvSpec(**(vars(spec) | {"stack_padding": padding})), 1)
        seen = []
        for value, first in ((1, False), (2, False), (3, True)):  # the very first frame starts an episode anyhow
            frame = {"observation": np.full((1, 1, 1), value, np.uint8)}
            seen.append(stacker.push(np.array([0]), frame, np.array([first]))["observation"].ravel().tolist())
        assert seen == want


def test_stack_rows_never_cross_the_start() -> None:
    rows, padding = stack_rows(np.array([7, 8]), np.array([1, 5]), 4)
    assert rows.tolist() == [[6, 6, 6, 7], [5, 6, 7, 8]]
    assert padding.tolist() == [[True, True, False, False], [False] * 4]
