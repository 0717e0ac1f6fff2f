"""The shape check that all algorithms share."""

from __future__ import annotations

import pytest
import torch

from offbeat.algorithms.checks import check_axes, check_shapes


def test_names_the_first_argument_that_differs():
    check_shapes((2, 3), x=torch.zeros(2, 3), y=None)
    with pytest.raises(ValueError, match=r"^y: expected shape \[2, 3\], got \[3, 2\]$"):
        check_shapes((2, 3), x=torch.zeros(2, 3), y=torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"^x: expected shape \[\], got \[1\]$"):
        check_shapes((), x=torch.zeros(1))


def test_counts_axes():
    check_axes("T, B", x=torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"^x: expected 2 axes \[T, B\], got shape \[2\]$"):
        check_axes("T, B", x=torch.zeros(2))
