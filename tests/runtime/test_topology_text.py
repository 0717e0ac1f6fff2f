"""What ``offbeat graph`` prints: every role with its count, how a run is scheduled, what is trained on."""

from __future__ import annotations

import pytest

from offbeat.cli import main
from offbeat.runtime.topology import topology
from offbeat.runtime.topology_text import describe
from offbeat.types import UNROLL, ItemSpec
from tests.runtime.parts import small_config


@pytest.mark.parametrize("inference", ["actor", "server"])
def test_all_roles_are_described_with_their_counts(inference: str) -> None:
    config = small_config(engine="local", actor__workers=3, actor__inference=inference, actor__threads=2)
    graph, text = topology(config, UNROLL), describe(config, UNROLL)
    for role in graph.roles:
        assert f"{role.count} x {role.kind}" in text
        assert role.loop in text
    assert "3 x actor      2 torch thread(s)" in text
    assert ("inference" in text) == (inference == "server")


def test_the_text_says_how_the_run_is_scheduled_and_what_is_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert "one thread, fixed rounds" in describe(small_config(), UNROLL)
    assert "lock-step" in describe(small_config(engine="local", deterministic="true"), UNROLL)
    assert "free-running" in describe(small_config(engine="local"), UNROLL)
    assert "batches of 2 unrolls x 5 rows from fifo 1" in describe(small_config(), UNROLL)
    assert "2 sequences x 24 rows" in describe(small_config(), ItemSpec("sequence", length=24))
    assert main(["graph", "apex-catch"]) == 0
    assert "batches of 64 3-step transitions from prioritised 1" in capsys.readouterr().out


def test_learners_beside_the_first_and_what_they_share_are_described() -> None:
    text = describe(small_config(engine="local", learner__mode="async", learner__count=3), UNROLL)
    assert "  2 x learner" in text and "Master" in text
    assert "Master" not in describe(small_config(engine="local"), UNROLL)
