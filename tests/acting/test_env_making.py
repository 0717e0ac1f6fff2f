"""How a check makes environments: one by one, at once by a vector entry point, and what other processes cannot make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import pytest

import offbeat
from tests.zoo.small import Small
from tests.zoo.vectors import Lamps


class Lamp(Small):
    """One of ``Lamps``."""


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[str]:
    single, vector = request.param
    gymnasium.register("Lamp-v0", entry_point=single, vector_entry_point=vector)
    yield "Lamp-v0"
    del gymnasium.registry["Lamp-v0"]


def made_of(single: Any, vector: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("registered", [(single, vector)], indirect=True)


def closing(single: bool) -> Callable[..., Any]:
    """A factory that no other process can be handed."""
    if single:
        return lambda: Small()
    return lambda num_envs: Lamps(num_envs)


@pytest.mark.parametrize("single", [True, False])
def test_a_factory_made_by_a_closure_is_warned_of_first(single: bool) -> None:
    report = offbeat.check_env(closing(single), steps=20)
    assert report.ok, "engine = 'inline' can use it"
    assert "'offbeat train' refuses it: <function closing.<locals>.<lambda>" in report.warnings[0]
    assert "only engine = 'inline'" in report.warnings[0]


@made_of(Lamp, lambda num_envs: Lamps(num_envs))
def test_so_is_an_id_that_only_this_program_can_make(registered: str) -> None:
    assert "'offbeat train' refuses it" in offbeat.check_env(registered, steps=20).warnings[0]
