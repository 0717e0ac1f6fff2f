"""Batches of any kind as named columns, batch axis first, for code that moves whole columns and need not know the
fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from offbeat.types import Batch, Inputs, TensorDict, Transition, Unroll

PER_COLUMN = ("stream", "row", "source", "weight", "replayed", "core_state")
"""Fields with the batch axis first; all others have it second, but in transitions, where only inputs have."""
B = TypeVar("B", bound=Batch)


def columns_of(batch: Batch) -> TensorDict:
    """Views of every tensor of ``batch``: name -> [B, ...], or [B, T, ...] where it has a time axis."""
    found: TensorDict = {}
    for name, value in _parts(vars(batch)):
        found[name] = value.transpose(0, 1) if _timed(type(batch), name) else value
    return found


def from_columns(kind: type[B], columns: Mapping[str, Tensor], **others: Any) -> B:
    """The batch that ``columns_of`` took apart, contiguous in its own order. ``others``: what is no tensor in it."""
    made = {
        name: value.transpose(0, 1).contiguous() if _timed(kind, name) else value for name, value in columns.items()
    }
    values: dict[str, Any] = {}
    for field in fields(kind):
        inside = {n.removeprefix(f"{field.name}/"): v for n, v in made.items() if n.startswith(f"{field.name}/")}
        if field.name in made:
            values[field.name] = made[field.name]
        elif field.name in ("inputs", "next_inputs"):
            values[field.name] = _inputs(inside)
        elif field.name == "before" and inside:
            own = {n.removeprefix("before/"): value for n, value in columns.items() if n.startswith("before/")}
            values["before"] = from_columns(Unroll, own)
        elif field.name in ("extras", "core_state"):
            values[field.name] = inside
    return kind(**values, **others)


def join_columns(batches: list[B]) -> B:
    """One batch with the columns of several, in their order. ValueError where they have other columns."""
    first = batches[0]
    parts = [columns_of(batch) for batch in batches]
    for part in parts[1:]:
        if part.keys() != parts[0].keys():
            raise ValueError(f"columns {sorted(part.keys() ^ parts[0].keys())} are in some of the batches only")
    others = {name: value for name, value in vars(first).items() if isinstance(value, int | tuple)}
    return from_columns(type(first), {name: torch.cat([p[name] for p in parts]) for name in parts[0]}, **others)


def paste_columns(batch: Batch, other: Batch, at: Tensor) -> None:
    """Overwrite the columns ``at`` [n] int64 of ``batch`` by the n columns of ``other``."""
    new = columns_of(other)
    for name, value in columns_of(batch).items():
        value[at] = new[name]


def _timed(kind: type, name: str) -> bool:
    head = name.removeprefix("before/").split("/")[0]
    if issubclass(kind, Transition):
        return head in ("inputs", "next_inputs")
    return head not in PER_COLUMN


def _parts(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Tensor]]:
    """Every tensor among ``values`` and in what they hold, by its path."""
    found: list[tuple[str, Tensor]] = []
    for name, value in values.items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        elif isinstance(value, dict):
            found += _parts(value, f"{prefix}{name}/")
        elif isinstance(value, Inputs | Unroll):
            found += _parts(vars(value), f"{prefix}{name}/")
    return found


def _inputs(parts: Mapping[str, Tensor]) -> Inputs:
    """Inputs of their parts."""
    seen = {name.removeprefix("observation/"): v for name, v in parts.items() if name.startswith("observation/")}
    return Inputs(seen, **{name: value for name, value in parts.items() if not name.startswith("observation/")})
