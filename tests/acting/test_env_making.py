"""How a check makes environments: one by one, at once by a vector entry point, and what other processes cannot make."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

import offbeat
from offbeat.cli import main
from tests.zoo.small import Small
from tests.zoo.vectors import FAULTS, Lamps


class Lamp(Small):
    """One of ``Lamps``."""


class Other(Lamps):
    """Its actions are fewer than those of a single one."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.single_action_space = gymnasium.spaces.Discrete(2)


class Scalar(Lamps):
    """Its reward is one number for all."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs, "scalar-reward")


class Forgetful(Lamps):
    """It draws from a generator that no seed reaches."""

    drawn = np.random.default_rng()

    def seen(self) -> np.ndarray:
        return self.drawn.uniform(-1, 1, (self.num_envs, 3)).astype(np.float32)


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[str]:
    single, vector = request.param
    gymnasium.register("Lamp-v0", entry_point=single, vector_entry_point=vector)
    yield "Lamp-v0"
    del gymnasium.registry["Lamp-v0"]


def made_of(single: Any, vector: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("registered", [(single, vector)], indirect=True)


@made_of(Lamp, Lamps)
@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("auto", "checked both ways, one alone, and 8 at once .* a run takes that from 8 copies on, unless"),
        ("yes", "checked both ways, one alone, and 8 at once .* a run takes that always"),
        ("no", "one after the other, as env.vectorised = 'no'; its vector entry point was not tried"),
    ],
)
def test_the_vector_entry_point_is_checked_too_and_the_way_is_said(registered: str, way: str, says: str) -> None:
    report = offbeat.check_env(registered, vectorised=way, steps=30)
    assert report.ok and not report.warnings, report
    assert re.search(says, report.facts["stepped"]), report
    assert report.facts["closing"] == ("3 closed" if way == "no" else "4 closed")


def test_an_id_of_gymnasium_is_checked_as_the_command_line_offers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "check", "CartPole-v1", "--env.vectorised", "yes", "--steps", "30"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "no errors, no warnings" in shown and "8 at once by its vector entry point" in shown


@made_of(Lamp, Other)
def test_one_that_does_not_fit_is_an_error_where_it_is_insisted_on(registered: str) -> None:
    report, asked = (offbeat.check_env(registered, vectorised=way, steps=20) for way in ("auto", "yes"))
    (line,) = report.warnings
    assert report.ok and "its vector entry point has" in line and "cannot be taken" in report.facts["stepped"]
    assert asked.errors == (line,) and not asked.warnings


@made_of(Lamp, Scalar)
def test_a_vector_entry_point_that_misbehaves_is_an_error(registered: str) -> None:
    (line,) = offbeat.check_env(registered, steps=20).errors
    assert re.search(FAULTS["scalar-reward"], line)


@made_of(Lamp, Forgetful)
def test_its_own_warnings_are_said_to_be_its(registered: str) -> None:
    report = offbeat.check_env(registered, vectorised="yes", steps=20)
    assert report.ok and all(line.startswith("stepped at once, by its vector entry") for line in report.warnings)
    assert len(report.warnings) == 1 and "does not repeat itself" in report.warnings[0]


def test_what_has_none_refuses_the_switch_in_the_words_of_a_run() -> None:
    for given in (Small, "Acrobot-v1", Lamps):
        (line,) = offbeat.check_env(given, vectorised="yes", steps=5).errors
        assert "vectorised='yes' means nothing to" in line


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
