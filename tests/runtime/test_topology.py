"""The topology names every role that a run starts, and its wires join roles that there are."""

from __future__ import annotations

import importlib

import pytest

from offbeat.runtime.topology import describe, topology
from offbeat.runtime.world import roles_of
from tests.runtime.parts import small_config

PLACES = ("actor", "server")


@pytest.mark.parametrize("inference", PLACES)
def test_all_roles_are_described_with_their_counts(inference: str) -> None:
    config = small_config(actor__workers=3, actor__inference=inference, actor__threads=2)
    graph, text = topology(config), describe(config)
    started = [role.split("-")[0] for role in roles_of(config)]
    assert {role.name: role.count for role in graph.roles} == {name: started.count(name) for name in started}
    for role in graph.roles:
        assert f"{role.count} x {role.name}" in text
        assert role.function in text
    assert "3 x actor      2 torch thread(s)" in text
    assert ("inference" in text) == (inference == "server")


@pytest.mark.parametrize("inference", PLACES)
def test_wires_join_roles_that_are_there(inference: str) -> None:
    graph = topology(small_config(actor__inference=inference))
    names = {role.name for role in graph.roles} | {"main", "every role"}
    assert {end for wire in graph.wires for end in (wire.source, wire.target)} <= names
    readers = {wire.target for wire in graph.wires if "ParamStore" in wire.port}
    assert readers == {"evaluator", "inference" if inference == "server" else "actor"}


def test_functions_of_roles_exist() -> None:
    for role in topology(small_config(actor__inference="server")).roles:
        module, name = role.function.rsplit(".", 1)
        assert callable(getattr(importlib.import_module(f"offbeat.{module}"), name))


def test_the_text_says_how_the_run_is_scheduled() -> None:
    assert "one thread, fixed rounds" in describe(small_config())
    assert "lock-step" in describe(small_config(engine="local", deterministic="true"))
    assert "free-running" in describe(small_config(engine="local"))
    assert "batches of 2 unrolls x 5 rows from fifo 1" in describe(small_config())
