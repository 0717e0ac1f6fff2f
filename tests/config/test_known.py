"""Options of a class that somebody else wrote: read from its source where there is one, else from the class alone."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass

import pytest

from offbeat.agents import apex
from offbeat.config.known import find_options, options_of
from offbeat.config.options import all_options
from offbeat.networks.encoder import EncoderConfig

RATE = 0.25


@dataclass(frozen=True)
class Config(EncoderConfig):
    """Inherits from offbeat."""

    rate: float = RATE
    """How much, in [0, 1]. Unit: cups. Source: Nonymous 1999."""
    hidden_size: tuple[int, ...] = (7,)
    """Other widths."""
    kinds: tuple[str, ...] = ("a", "b")


@dataclass(frozen=True)
class More(Config):
    """Inherits from that."""

    rate: float = 0.5


def test_texts_are_those_below_the_fields_and_defaults_those_that_hold() -> None:
    found = {option.name: option for option in options_of(Config, "agent", "mine")}
    rate = found["agent.rate"]
    assert (rate.default, rate.values, rate.unit, rate.source) == ("0.25", "float", "cups", "Nonymous 1999")
    assert (rate.text, rate.owner) == ("How much, in [0, 1].", "mine")
    assert found["agent.hidden_size"].default == "[7]"
    assert found["agent.torso"].text.startswith("Network up to the features")
    assert (found["agent.kinds"].text, found["agent.kinds"].default) == ("", '["a", "b"]')
    assert {option.name: option.default for option in options_of(More, "agent", "mine")}["agent.rate"] == "0.5"


def test_offbeats_own_come_out_as_from_the_source() -> None:
    assert options_of(apex.Config, "agent", "apex") == [option for option in all_options() if option.owner == "apex"]


def test_a_class_without_source_has_names_types_and_defaults() -> None:
    (option,) = options_of(make_dataclass("Made", [("width", int, 20_000)]), "agent", "made")
    assert (option.name, option.values, option.default, option.text) == ("agent.width", "int", "20_000", "")


def test_what_is_no_dataclass_is_refused() -> None:
    with pytest.raises(TypeError):
        options_of(int, "agent", "mine")


def test_options_are_found_by_their_full_names() -> None:
    owners = {"uniform", "prioritised", "attentive", "elite"}
    assert {option.owner for option in find_options("replay.samplers.3.window")} == owners
    assert len(find_options("agent.n_step")) > 1
    assert find_options("agent.no_such_thing") == []
