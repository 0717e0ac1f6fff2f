"""Unrolls as named columns, batch axis first, for code that moves whole columns and need not know the fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from offbeat.types import Inputs, TensorDict, Unroll

TIMED = ("valid", "action", "reward", "discount", "terminated", "truncated", "param_version")
PER_COLUMN = ("stream", "row", "source")


def unroll_columns(batch: Unroll) -> TensorDict:
    """Views of every tensor of ``batch``: name -> [B, ...], or [B, T, ...] where it has a time axis."""
    inputs = batch.inputs
    timed = {name: getattr(batch, name) for name in TIMED} | {"inputs/first": inputs.first}
    timed |= {f"inputs/observation/{key}": value for key, value in inputs.observation.items()}
    for name in ("last_action", "last_reward"):
        if getattr(inputs, name) is not None:
            timed[f"inputs/{name}"] = getattr(inputs, name)
    timed |= {f"extras/{name}": value for name, value in batch.extras.items()}
    columns = {name: value.transpose(0, 1) for name, value in timed.items()}
    columns |= {f"core_state/{name}": value for name, value in batch.core_state.items()}
    return columns | {name: getattr(batch, name) for name in PER_COLUMN}


def unroll_from_columns(columns: Mapping[str, Tensor]) -> Unroll:
    """The unroll that ``unroll_columns`` took apart, contiguous in time-major order."""

    def timed(name: str) -> Tensor:
        return columns[name].transpose(0, 1).contiguous()

    def part(prefix: str) -> list[str]:
        return [name for name in columns if name.startswith(prefix)]

    inputs = Inputs(
        observation={name.removeprefix("inputs/observation/"): timed(name) for name in part("inputs/observation/")},
        first=timed("inputs/first"),
        last_action=timed("inputs/last_action") if "inputs/last_action" in columns else None,
        last_reward=timed("inputs/last_reward") if "inputs/last_reward" in columns else None,
    )
    fields: dict[str, Any] = {name: timed(name) for name in TIMED} | {name: columns[name] for name in PER_COLUMN}
    return Unroll(
        inputs=inputs,
        extras={name.removeprefix("extras/"): timed(name) for name in part("extras/")},
        core_state={name.removeprefix("core_state/"): columns[name] for name in part("core_state/")},
        **fields,
    )


def paste_columns(batch: Unroll, other: Unroll, at: Tensor) -> None:
    """Overwrite the columns ``at`` [n] int64 of ``batch`` by the n columns of ``other``."""
    new = unroll_columns(other)
    for name, value in unroll_columns(batch).items():
        value[at] = new[name]
