"""Noisy linear layers: exploration learnt as noise on the weights (Fortunato et al. 2018, "Noisy Networks")."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.networks.autocast import without_autocast
from offbeat.networks.exact import exact


class NoisyLinear(nn.Module):
    """A linear layer with factorised Gaussian noise (Fortunato et al. 2018, eq. 10 and 11), drawn anew in each forward.

    ``y = (w + s * f(e_out) f(e_in)^T) x + b + t * f(e_out)`` with ``f(e) = sign(e) sqrt(|e|)``; one draw serves the
    whole batch. Noise is added in float32; ``exact`` layers compute in float32 also under autocast.

    Attributes:
        generator: of the noise; None: torch's global one.
        quiet: leave the noise out (greedy acting).
    """

    def __init__(self, input_size: int, output_size: int, sigma: float = 0.5, *, exact: bool = True) -> None:
        """``sigma``: initial noise, in units of ``1 / sqrt(input_size)`` (Rainbow: 0.5)."""
        super().__init__()
        self.exact = exact
        bound = input_size**-0.5
        self.weight = nn.Parameter(torch.empty(output_size, input_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(output_size).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((output_size, input_size), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((output_size,), sigma * bound))
        self.generator: torch.Generator | None = None
        self.quiet = False

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] of any float dtype -> [..., D'] float32, or autocast's dtype where the layer is not ``exact``."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if not self.quiet:
            # One product with the whole batch and not two: the noise costs a pass over the weights, forth and back.
            inner, outer = self._noise(weight.shape[1]), self._noise(weight.shape[0])
            weight = torch.addcmul(weight, self.weight_sigma, torch.outer(outer, inner))
            bias = torch.addcmul(bias, self.bias_sigma, outer)
        if not self.exact:
            return functional.linear(x, weight, bias)
        with without_autocast(x.device.type):
            return functional.linear(exact(x), weight, bias)

    def _noise(self, size: int) -> Tensor:
        drawn = torch.randn(size, dtype=self.weight.dtype, device=self.weight.device, generator=self.generator)
        return drawn.sign() * drawn.abs().sqrt()


def set_noise(network: nn.Module, generator: torch.Generator | None, quiet: bool = False) -> None:
    """Where all noisy layers of ``network`` draw from, and whether they do."""
    for layer in network.modules():
        if isinstance(layer, NoisyLinear):
            layer.generator, layer.quiet = generator, quiet
