"""Pictures as text for a terminal: each character is two pixels, one above the other, in 24-bit colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

UPPER = "\u2580"
"""The upper half of a character's cell in its colour; the lower one has the background's."""
HOME, CLEAR_REST, RESET = "\x1b[H", "\x1b[J", "\x1b[0m"


def fitted(picture: np.ndarray, columns: int, lines: int) -> np.ndarray:
    """``picture`` [H, W, 3] uint8 with its sides in proportion, within ``columns`` by twice ``lines`` pixels; of an
    even height, at least 2 by 1.
    """
    height, width = picture.shape[:2]
    scale = min(columns / width, 2 * lines / height)
    across, down = max(1, int(width * scale)), max(2, int(height * scale) // 2 * 2)
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((across, down), how))


def half_blocks(picture: np.ndarray) -> str:
    """``picture`` [H, W, 3] uint8, H even, as H / 2 lines of W characters. A colour is named where it changes."""
    lines = []
    for upper, lower in zip(picture[0::2], picture[1::2], strict=True):
        parts, before = list[str](), None
        for over, under in zip(upper.tolist(), lower.tolist(), strict=True):
            colours = (*over, *under)
            if colours != before:
                parts.append("\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*colours))
                before = colours
            parts.append(UPPER)
        lines.append("".join(parts) + RESET)
    return "\n".join(lines)
