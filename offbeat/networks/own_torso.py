"""Torsos of the user's own: a Python object, or one that another package brings in by an entry point.

The group of entry points is ``offbeat.torsos``. Such a torso is made by a function of the observations' specs (key ->
``ArraySpec``, frame stacks included), and is a ``torch.nn.Module`` with an ``output_size`` that takes observations, key
-> [T, B, ...] in the specs' dtypes, to features [T, B, ``output_size``] float32.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import Tensor, nn

from offbeat.errors import UserError, called, load_entry_point, unknown
from offbeat.networks.torsos import KINDS, in_two
from offbeat.types import ArraySpec, TensorDict

ENTRY_POINT_GROUP = "offbeat.torsos"
PYTHON = "python:"
"""What stands before the name of a torso that was handed over as an object: it can be made by nobody else."""

TorsoFactory = Callable[[dict[str, ArraySpec]], nn.Module]


def list_torsos() -> list[str]:
    """Names of all torsos, offbeat's own first."""
    others = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return [*KINDS, *sorted(others - set(KINDS))]


def check_torso(name: str) -> None:
    """Raise UserError, naming the nearest, where there is no torso of that name."""
    if name == "auto" or name in KINDS or name.startswith(PYTHON):
        return
    if name not in list_torsos():
        raise unknown("torso", name, ["auto", *list_torsos()])


def find_torso(name: str) -> TorsoFactory | None:
    """The factory of a torso from an entry point; None for offbeat's own.

    Raises:
        UserError: the torso was an object in the program that began the run, and has to be handed over again.
    """
    if name == "auto" or name in KINDS:
        return None
    if name.startswith(PYTHON):
        raise UserError(
            f"torso={name!r} is an object of the program that trained this run: hand it over again, with "
            "torso=... where the agent is trained, resumed or loaded from Python"
        )
    check_torso(name)
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    factory: TorsoFactory = load_entry_point("torso", points[name])
    return factory


def name_of(factory: Any) -> str:
    """How a run's files name a torso that was handed over."""
    return f"{PYTHON}{called(factory)}"


class OwnTorso(nn.Module):
    """A user's torso as agents' networks hold theirs."""

    channels_last = False
    """Its images stay as they are."""

    def __init__(self, factory: TorsoFactory, observation: dict[str, ArraySpec]) -> None:
        """Make it for these specs. UserError, naming what was expected and got, where it is none."""
        super().__init__()
        made: Any = factory(dict(observation))
        name = called(factory)
        if not isinstance(made, nn.Module):
            raise UserError(f"torso {name}: expected a torch.nn.Module, got {type(made).__name__}")
        size = getattr(made, "output_size", None)
        if not isinstance(size, int) or size < 1:
            raise UserError(f"torso {name}: output_size: expected a whole number above 0, got {size!r}")
        self.module = made
        self.output_size: int = size
        self._try(name, observation)

    @torch.no_grad()
    def _try(self, name: str, observation: dict[str, ArraySpec]) -> None:
        """Run it once on zeros, so that what does not fit is said here."""
        zeros = {key: torch.from_numpy(spec.zeros(2, 3)) for key, spec in observation.items()}
        got = self.module(zeros)
        if not isinstance(got, Tensor) or got.shape != (2, 3, self.output_size) or got.dtype != torch.float32:
            told = f"{got.dtype} {list(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
            raise UserError(
                f"torso {name}: expected features torch.float32 [2, 3, {self.output_size}] of observations [2, 3, ...] "
                f"(T, B, output_size), got {told}"
            )

    def cast(self, observation: TensorDict) -> TensorDict:
        """The observations as they are."""
        return observation

    def forward(self, observation: TensorDict, trained: int | None = None) -> Tensor:
        """Features [T, B, ``output_size``]; gradients come from the first ``trained`` rows only (None: from all)."""
        if trained is None:
            features: Tensor = self.module(observation)
            return features
        return in_two(self.module, observation, trained)
