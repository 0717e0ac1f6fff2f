"""Three rows of two streams (column 0 online, 1 replayed), three actions, of which all losses are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def table(values: Any) -> Tensor:
    """A float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


LOGITS = table([
    [[0.5, 0, -0.5], [1, 0.2, -1]], [[0.1, 0.4, 0], [0.3, -0.3, 0.9]], [[-0.2, 0.6, 0.2], [2, 0, -1]],
])  # fmt: skip
BEHAVIOUR_LOGITS = table([
    [[0.4, 0.1, -0.4], [0.2, 0.9, -0.3]], [[0, 0.5, 0.1], [0.4, -0.1, 0.5]], [[-0.1, 0.5, 0.1], [-1, 0.5, 1]],
])  # fmt: skip
ACTION = torch.tensor([[0, 1], [1, 2], [2, 0]])
REWARD = table([[1, 0], [0, 1], [-1, 1]])
DISCOUNT = 0.99 * table([[1, 1], [1, 1], [0, 1]])
VALUE = table([[0.5, 0.2], [0.3, -0.1], [-0.2, 0.4]])
BOOTSTRAP_VALUE = table([0.1, 0.6])
BEHAVIOUR_VALUE = table([[0.45, 0.5], [0.35, 0.1], [-0.1, -0.2]])
REPLAYED = torch.tensor([False, True])

FORWARD = table([[0.00498286, 0.25948804], [0.00402769, 0.03620151], [0.00359636, 1.70410006]])
"""KL(mu || pi)."""
REVERSE = table([[0.00499516, 0.27275250], [0.00414394, 0.03637623], [0.00346893, 1.77537737]])
"""KL(pi || mu)."""
RELEVANCE = table([[0.00134396, 0.08312266], [0.00212627, 0.00994521], [0.00017725, 0.55968602]])
"""KL(pi || implied policy) with rho_bar 1."""


def near(got: Tensor, expected: Tensor | float, within: float = 1e-8) -> None:
    """Equal but for the digits that are not printed."""
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=got.dtype), rtol=0, atol=within)
