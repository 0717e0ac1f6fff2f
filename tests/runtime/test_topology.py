"""The table of roles: what a run starts is what it says, and its wires join roles that there are."""

from __future__ import annotations

import importlib
import inspect
import pickle
from typing import Any

import pytest

from offbeat.runtime.topology import Role, Topology, topology
from offbeat.types import UNROLL
from tests.runtime.parts import small_config

PLACES = ("actor", "server")


def free(**options: object) -> Topology:
    """The roles of a free-running run."""
    return topology(small_config(engine="local", **options), UNROLL)


def test_roles_are_the_learner_the_evaluator_and_every_actor() -> None:
    assert free(actor__workers=2).names() == ["learner", "evaluator", "actor-0", "actor-1"]
    assert free(actor__inference="server").names() == ["learner", "evaluator", "inference", "actor-0"]


@pytest.mark.parametrize("fixed", [{"engine": "inline"}, {"engine": "local", "deterministic": True}])
def test_rounds_have_no_inference_server(fixed: dict[str, object]) -> None:
    assert "inference" not in topology(small_config(actor__inference="server", **fixed), UNROLL).names()


def test_there_is_one_server_for_each_device_but_none_without_workers() -> None:
    devices = {"actor__inference": "server", "inference__device": "cuda:1,cuda:2"}
    graph = free(actor__workers=5, **devices)
    assert graph.of("inference") == ["inference-0", "inference-1"]
    row = graph.row("inference-1")
    assert [row.device(index) for index in range(2)] == ["cuda:1", "cuda:2"]
    assert free(actor__workers=1, **devices).of("inference") == ["inference"]


def test_learners_beside_the_first_have_a_row_of_their_own() -> None:
    options = {"learner__mode": "async", "learner__count": 3, "learner__max_restarts": 7}
    graph = free(**options)
    assert graph.of("learner") == graph.that("turn", "learn") == ["learner", "learner-1", "learner-2"]
    assert [graph.index(name) for name in graph.of("learner")] == [0, 1, 2]
    assert graph.that("keeper") == ["learner"]
    first, other = graph.row("learner"), graph.row("learner-2")
    assert (first.replaced, other.replaced, other.limit) == (7, 7, "learner.max_restarts")
    assert (other.keeper, other.saved, other.seed, other.turn) == (False, False, first.seed, "learn")
    assert graph.nbytes(inline=False) - free().nbytes(inline=False) == 2 * graph.nbytes(inline=True)


def test_the_first_learner_is_rebuilt_where_something_is_kept_to_do_so_from() -> None:
    limit = {"learner__max_restarts": 7}
    assert free(**limit).row("learner").replaced == 7 and not free(**limit).row("learner").together
    assert free(**limit, learner__mode="async").row("learner").replaced == 7
    assert free(**limit, learner__mirror_every=0).row("learner").replaced == 0
    for fixed in ({"engine": "inline"}, {"engine": "local", "deterministic": True}):
        assert topology(small_config(**fixed, **limit), UNROLL).row("learner").replaced == 0
    both = free(**limit, learner__count=2)
    assert [(row.replaced, row.together) for row in map(both.row, both.of("learner"))] == [(7, True)] * 2
    assert both.that("together") == both.of("learner")


def test_a_name_leads_to_its_row() -> None:
    graph = free(actor__workers=3)
    assert [graph.index(name) for name in graph.of("actor")] == [0, 1, 2]
    assert graph.row("actor-2").kind == "actor"
    assert graph.that("keeper") == ["learner"]
    assert graph.that("turn", "asked") == ["evaluator"]
    assert graph.that("owns_streams") == graph.of("actor")
    with pytest.raises(KeyError, match="there is no role 'janitor'; there are learner, evaluator, actor-0"):
        graph.row("janitor")
    assert pickle.loads(pickle.dumps(graph)) == graph


def test_options_are_columns() -> None:
    options = {"learner__hang_timeout_s": 7.0, "learner__compile": True, "actor__max_restarts": 9, "actor__threads": 3}
    graph = free(actor__hang_timeout_s=8.0, evaluation__threads=2, **options)
    learner, actor = graph.row("learner"), graph.row("actor-0")
    assert (learner.hang_timeout_s, learner.long_start, learner.replaced) == (7.0, True, 5)
    assert (actor.hang_timeout_s, actor.threads, actor.replaced, actor.limit) == (8.0, 3, 9, "actor.max_restarts")
    assert graph.row("evaluator").threads == 2


def test_memory_counts_every_process() -> None:
    graph = free(actor__workers=2, actor__inference="server")
    assert graph.nbytes(inline=False) == 6 * graph.nbytes(inline=True)


@pytest.mark.parametrize("inference", PLACES)
def test_wires_join_roles_that_are_there(inference: str) -> None:
    graph = free(actor__inference=inference)
    names = {role.kind for role in graph.roles} | {"main", "every role"}
    assert {end for wire in graph.wires for end in (wire.source, wire.target)} <= names
    readers = {wire.target for wire in graph.wires if "ParamStore" in wire.port}
    assert readers == {"evaluator", "inference" if inference == "server" else "actor"}


def test_functions_of_roles_exist() -> None:
    for role in free(actor__inference="server").roles:
        module, name = role.loop.rsplit(".", 1)
        assert callable(getattr(importlib.import_module(f"offbeat.{module}"), name))
        assert list(inspect.signature(role.builder()).parameters) == ["services"]
        assert role.builder().__module__ == f"offbeat.{module}", "what builds a role stands beside its loop"


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"turn": "befor"}, "turn='befor' is not allowed; choose one of: act, learn, after, serve, asked"),
        ({"count": 2}, "count=2 instances need names of their own: numbered=True"),
    ],
)
def test_a_row_that_could_never_run_is_refused(columns: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"role mine: {says}"):
        Role("mine", "module:build", "module.run", **columns)


@pytest.mark.parametrize("kind", ["actor-0", "learner", "streams"])
def test_names_that_are_taken_are_refused(kind: str) -> None:
    rows = free().roles
    with pytest.raises(ValueError, match=f"the names .*{kind}.* are taken"):
        Topology((*rows, Role(kind, "module:build", "module.run")))
    with pytest.raises(ValueError, match=r"build='module\.build' is no 'module:function'"):
        Role("mine", "module.build", "module.run").builder()


def test_a_row_of_somebody_elses_is_found_by_its_name() -> None:
    row = Role("janitor", "tests.runtime.parts:small_config", "nowhere")
    assert row.builder() is small_config
    assert row.names() == ["janitor"]
