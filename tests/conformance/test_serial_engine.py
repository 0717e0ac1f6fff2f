"""The same role functions behind ports that turn everything into bytes and share no memory."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest

from tests.conformance import serial_engine
from tests.conformance.counting_agent import Allowed, CountingAgent
from tests.conformance.counting_env import CountingFrames, counting_spec
from tests.conformance.runs import UNROLL, check_ledger, counting_config


@pytest.mark.parametrize("batch", [0, 3])
def test_the_roles_run_on_bytes_alone(batch: int, tmp_path: Path) -> None:
    config = counting_config(tmp_path, total_frames=1600, actor__batch=batch)
    spec = counting_spec(config.env)
    allowed = Allowed()
    work, store, records, wires = serial_engine.run(
        config,
        partial(CountingAgent, config.agent, spec, "cpu", allowed),
        lambda count: CountingFrames(config.env, count, batch or None, spread=UNROLL),
    )
    trained = work.updates * config.learner.batch_size * UNROLL
    assert trained > work.agent_steps >= config.total_frames, "rows with a final observation are no steps"
    store.settle()
    store.check_ledger()
    check_ledger(store.ledger(), trained=trained)
    assert {record["role"] for record in records} >= {"actor-0", "actor-1"}
    assert wires.batches.carried > 0 and wires.to_replay.carried > 0 and all(c.carried for c in wires.weights)


def test_a_port_that_hands_out_memory_of_its_own_is_refused() -> None:
    channel = serial_engine.Channel(serial_engine.threading.Event())
    with pytest.raises(AssertionError, match="cannot leave"):
        channel.put(bytearray(b"shared"))  # type: ignore[arg-type]


def test_objects_do_not_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        serial_engine.unpack(serial_engine.pack({"a": serial_engine.np.array([socket.socket], dtype=object)}))
