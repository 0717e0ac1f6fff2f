"""Nobody takes everything and stops nobody; nobody's weights are the network's own."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from offbeat.run.nobody import Nobody, NoWeights


def test_rows_and_numbers_are_taken_and_the_run_is_never_over() -> None:
    nobody, block = Nobody(), cast(Any, object())
    nobody.append(block)
    nobody.offer(block)
    nobody.produced(np.arange(2))
    nobody.write("actor", {"frames": 1.0})
    assert nobody.attach(np.arange(2)) is None
    assert not nobody.is_set()


def test_there_are_no_other_weights() -> None:
    weights, flat = NoWeights(), torch.ones(3)
    assert weights.version() == weights.pull(flat).updates == -1
    assert bool((flat == 1).all())
    with pytest.raises(RuntimeError, match="no weights have been published"):
        weights.pin()
    weights.release()
