"""Dataclasses from plain data and back: what TOML files and command lines hold becomes typed, checked fields.

Every refusal is a ``UserError`` that names the option by its full name, e.g. ``learner.batch_size``.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from typing import Any, Literal, TypeVar, Union

from offbeat.errors import UserError, nearest

T = TypeVar("T")

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
NONE = "none"
"""How an absent value is written where TOML has no word for it."""


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """An instance of dataclass ``cls``: its defaults, with ``values`` (plain data or text) for the fields they name.

    ``where`` is the section's name for messages. Raises ``UserError`` for unknown keys and wrong types.
    """
    return update(cls(), values, where)


def update(instance: T, values: dict[str, Any], where: str) -> T:
    """A copy of a dataclass ``instance`` with the fields that ``values`` names replaced; errors as ``build``."""
    if not isinstance(values, dict):
        raise UserError(f"{where}={values!r} is not a section; write [{where}] with keys below it")
    hints = field_types(type(instance))
    for key in values:
        if key not in hints:
            hint = nearest(key, hints, join(where, "")) or f"; known: {', '.join(hints)}"
            raise UserError(f"unknown option {join(where, key)!r}{hint}")
    made = {key: convert(value, hints[key], join(where, key)) for key, value in values.items()}
    try:
        return dataclasses.replace(instance, **made)  # type: ignore[type-var]
    except UserError:
        raise
    except ValueError as error:  # a dataclass that checks itself
        raise UserError(f"[{where}] {error}") from error


def plain(instance: Any) -> dict[str, Any]:
    """A dataclass as plain data that TOML can hold, every field included (None as ``"none"``)."""
    return {f.name: plain_value(getattr(instance, f.name)) for f in dataclasses.fields(instance)}


def plain_value(value: Any) -> Any:
    """One field's value as plain data."""
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, tuple | list):
        return [plain_value(item) for item in value]
    return NONE if value is None else value


def field_types(cls: type) -> dict[str, Any]:
    """Name -> type of each field of a dataclass, in order."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]


def convert(value: Any, hint: Any, name: str) -> Any:
    """``value`` as type ``hint``: text is parsed, numbers are widened but never cut; ``UserError`` otherwise."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, name)
    if origin is Literal:
        return _convert_choice(value, args, name)
    if origin in (tuple, list):
        return _convert_tuple(value, args, name)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, name)  # type: ignore[arg-type]
    converters = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}
    if hint not in converters:
        raise TypeError(f"option {name}: fields of type {hint} are not supported")
    try:
        return converters[hint](value)
    except (ValueError, TypeError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[hint]
        raise UserError(f"{name}={value!r} is not {wanted}") from None


def _convert_union(value: Any, args: tuple[Any, ...], name: str) -> Any:
    """A type that may be absent (``| None``), or that has words beside its values (``| Literal["auto"]``)."""
    if type(None) in args and (value is None or (isinstance(value, str) and value.lower() == NONE)):
        return None
    words = [word for arg in args if typing.get_origin(arg) is Literal for word in typing.get_args(arg)]
    if isinstance(value, str) and value in words:
        return value
    inner = next(arg for arg in args if arg is not type(None) and typing.get_origin(arg) is not Literal)
    try:
        return convert(value, inner, name)
    except UserError as error:
        raise UserError(" or ".join([str(error), *words])) from None


def _convert_choice(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    for choice in choices:
        if value == choice or str(value) == str(choice):
            return choice
    allowed = ", ".join(str(choice) for choice in choices)
    raise UserError(f"{name}={value!r} is not allowed; choose one of: {allowed}")


def _convert_tuple(value: Any, args: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = parse_list(value, name)
    if not isinstance(value, list | tuple):
        raise UserError(f"{name}={value!r} is not a list; separate items with commas")
    repeated = len(args) == 1 or args[-1] is Ellipsis
    if not repeated and len(value) != len(args):
        raise UserError(f"{name} has {len(value)} items, {len(args)} are needed")
    hints = [args[0]] * len(value) if repeated else list(args)
    return tuple(convert(item, hint, f"{name}.{i}") for i, (item, hint) in enumerate(zip(value, hints, strict=True)))


def parse_list(text: str, name: str) -> list[Any]:
    """A list written as TOML (``[{kind = "fifo"}]``) or as plain items (``64,64``)."""
    if text.strip().startswith("["):
        try:
            return list(tomllib.loads(f"value = {text}")["value"])
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{name}={text!r} is not a list in TOML form: {error}") from None
    return [item.strip() for item in text.split(",") if item.strip()]


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in TRUE + FALSE:
        return value.lower() in TRUE
    raise ValueError


def _to_int(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)  # 30e6
    if isinstance(value, int):
        return value
    if value != int(value):
        raise ValueError
    return int(value)


def _to_float(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or math.isnan(number):
        raise ValueError
    return number


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def join(where: str, key: str) -> str:
    """``where.key``, or ``key`` alone at the top level."""
    return f"{where}.{key}" if where else key
