"""The stem of a network: its torso, which another run may have trained, and parts of it that stay as they are.

Names are those of ``Encoder``: all of the torso are ``torso.*``, its convolutions ``torso.trunks.*``, the layer behind
them ``torso.image_layer.*``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from offbeat.errors import UserError

STEM = "torso."
"""What the names of all weights of a torso begin with."""
CONV, FC = "torso.trunks.", "torso.image_layer."
"""Those of its convolutions, and of the fully connected layer behind them."""


def stem_of(weights: Mapping[str, Any], fc: bool) -> dict[str, Any]:
    """Those of ``weights`` that are a torso's; ``fc``: with the layer behind its convolutions."""
    return {name: value for name, value in weights.items() if name.startswith(STEM) and (fc or not name.startswith(FC))}


def check_stem(stem: Mapping[str, Tensor], network: nn.Module, *, fc: bool, source: str) -> None:
    """Raise ``UserError`` where ``stem``, from ``source``, cannot take the place of the torso of ``network``.

    Args:
        stem: name -> weights, as ``stem_of`` gives them.
        network: whose names and shapes they must have.
        fc: the layer behind the convolutions is taken over too.
        source: what messages call the place that it is from.
    """
    needed, found = stem_of(network.state_dict(), fc), stem_of(stem, fc)
    if not needed:
        raise UserError(f"the stem {source} has no use: the agent's network has no weights called {STEM}*")
    if not found:
        raise UserError(f"{source} holds no stem: none of its weights is called {STEM}*")
    for name, value in needed.items():
        if name in found and found[name].shape != value.shape:
            raise UserError(
                f"the stem {source} does not fit: {name} is {list(found[name].shape)} there and "
                f"{list(value.shape)} here; its observations, agent.torso and the sizes of its layers must be those of "
                f"this run{_without(name)}"
            )
    missing, strange = needed.keys() - found.keys(), found.keys() - needed.keys()
    if missing or strange:
        name = min(missing or strange)
        where = "here, and is not there" if missing else "there, and is not here"
        raise UserError(
            f"the stem {source} does not fit: {name} is {where}; agent.torso must be that of this run{_without(name)}"
        )


def _without(name: str) -> str:
    """How a stem may fit nevertheless."""
    return ", or leave the layer out with --learner.stem-fc false" if name.startswith(FC) else ""


def frozen_names(network: nn.Module, *, conv: bool, fc: bool) -> list[str]:
    """Names of the parameters that are not trained. ``UserError`` where the network has no such layers.

    ``conv``: the torso's convolutions; ``fc``: the layer behind them.
    """
    names = [name for name, _ in network.named_parameters()]
    frozen: list[str] = []
    for wanted, prefix, option, layers in (
        (conv, CONV, "learner.freeze_conv", "convolutions in its torso"),
        (fc, FC, "learner.freeze_fc", "layer behind convolutions in its torso"),
    ):
        found = [name for name in names if name.startswith(prefix)]
        if wanted and not found:
            raise UserError(f"{option}=true has no use: the agent's network has no {layers}")
        frozen += found if wanted else []
    return frozen


def freeze(network: nn.Module, *, conv: bool, fc: bool) -> None:
    """Have these parameters get no gradient from now on; see ``frozen_names``."""
    frozen = set(frozen_names(network, conv=conv, fc=fc))
    for name, parameter in network.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
