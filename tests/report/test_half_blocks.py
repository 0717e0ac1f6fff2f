"""A picture as text: every pixel is there, in its colour."""

from __future__ import annotations

import re

import numpy as np
import pytest

from offbeat.report.half_blocks import UPPER, fitted, half_blocks


def pixels(text: str) -> np.ndarray:
    """The picture that a terminal would show, read from the text character by character."""
    rows = []
    for line in text.split("\n"):
        colours, above, below = [0] * 6, [], []
        for code, letter in re.findall(r"\x1b\[([0-9;]*)m|(.)", line):
            if letter:
                assert letter == UPPER
                above.append(colours[:3])
                below.append(colours[3:])
            elif code != "0":
                numbers = [int(number) for number in code.split(";")]
                assert numbers[:2] == [38, 2] and numbers[5:7] == [48, 2]
                colours = numbers[2:5] + numbers[7:10]
        rows += [above, below]
    return np.array(rows, np.uint8)


def test_every_pixel_is_there():
    picture = np.random.default_rng(0).integers(0, 3, (6, 9, 3)).astype(np.uint8) * 100
    assert np.array_equal(pixels(half_blocks(picture)), picture)
    plain = half_blocks(np.zeros((2, 50, 3), np.uint8))
    assert plain.count("\x1b[38") == 1, "a colour is named where it changes"


@pytest.mark.parametrize(
    ("size", "columns", "lines"), [((84, 84), 80, 20), ((210, 160), 200, 60), ((240, 2400), 80, 24)]
)
def test_it_fits_with_its_sides_in_proportion(size: tuple[int, int], columns: int, lines: int):
    found = fitted(np.full((*size, 3), 77, np.uint8), columns, lines)
    height, width = found.shape[:2]
    assert width <= columns and height <= 2 * lines and height % 2 == 0 and (found == 77).all()
    assert width == columns or height >= 2 * lines - 1
    assert abs(height / width - size[0] / size[1]) < 2 / width + 0.01
