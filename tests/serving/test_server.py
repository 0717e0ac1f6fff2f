"""``offbeat serve``: each client has its own state, and whatever a client does wrong has one promised answer."""

from __future__ import annotations

import hmac
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.run.load import LoadedAgent
from offbeat.runtime.clock import VirtualClock
from offbeat.serving import connection
from offbeat.serving.client import Client, Refused, decode, encode
from offbeat.serving.connection import HELLO_BYTES, LINGER_S, WHOLE_S
from offbeat.serving.policy import ServedPolicy
from offbeat.serving.server import STRANGERS, Server
from tests.serving.parts import TOKEN, Remembers, at, by_tcp, observed, serving, wait_until


class Twin:
    """What a client is to be told, by an agent of its own."""

    def __init__(self) -> None:
        self._agent = LoadedAgent(Remembers())

    def act(self, observation: Any, first: bool, reward: float) -> int:
        if first:
            self._agent.reset()
        return int(self._agent.act(observation, reward))


def asked_raw(path: Path | tuple[str, int], *sent: bytes, close: bool = False) -> list[tuple[dict[str, str], bool]]:
    """Send bytes and read all messages that come until the server hangs up: (texts, whether there were arrays)."""
    family = socket.AF_UNIX if isinstance(path, Path) else socket.AF_INET
    with socket.socket(family) as opened:
        opened.settimeout(10)
        opened.connect(str(path) if isinstance(path, Path) else path)
        for part in sent:
            opened.sendall(part)
        if close:
            return []
        received = bytearray()
        while new := opened.recv(65536):
            received += new
    found = []
    while received:
        length = int.from_bytes(received[:4], "big")
        texts, arrays = decode(received[4 : 4 + length])
        found.append((texts, bool(arrays)))
        received = received[4 + length :]
    return found


HELLO = encode("hello", {}, {})


def test_a_thousand_actions_are_those_of_the_agent_itself(tmp_path: Path) -> None:
    generator, twin, first = np.random.default_rng(0), Twin(), True
    actions = set()
    with serving(at(tmp_path / "s")) as server, Client(tmp_path / "s") as client:
        for _ in range(1000):
            seen, reward = observed(generator), float(generator.integers(5))
            action = client.act(seen, first=first, reward=reward)
            assert type(action) is int and action == twin.act(seen, first, reward)
            assert client.last["batch"] == "1" and 0 < float(client.last["forward_s"]) < float(client.last["server_s"])
            actions.add(action)
            first = generator.random() < 0.05
        assert server.answered == 1000
    assert len(actions) > 300, "actions tell what was remembered"


def test_each_client_has_its_own_state(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    with serving(at(tmp_path / "s"), slots=3):
        clients, twins = [Client(tmp_path / "s") for _ in range(3)], [Twin() for _ in range(3)]
        begun = [True] * 3
        for _ in range(300):
            index = int(generator.integers(3))
            seen, reward = observed(generator), float(generator.integers(5))
            first = begun[index] or generator.random() < 0.05
            assert clients[index].act(seen, first, reward) == twins[index].act(seen, first, reward)
            begun[index] = False
        for client in clients:
            client.close()


def test_questions_that_are_there_together_are_answered_at_once(tmp_path: Path) -> None:
    generator, policy = np.random.default_rng(2), ServedPolicy(Remembers(), slots=3)
    agent: Any = policy._agent
    server = Server(policy, at(tmp_path / "s"))
    opened = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    twins = [Twin() for _ in range(3)]
    for one in opened:
        one.connect(str(tmp_path / "s"))
        one.sendall(HELLO)
    while server.clients < 3:
        server._round()
    agent.batches.clear()
    for step in range(4):
        seen = [observed(generator) for _ in opened]
        for one, shown in zip(opened, seen):
            arrays = {f"observation/{name}": array for name, array in shown.items()}
            one.sendall(encode("act", {"number": str(step)}, arrays | {"reward": np.float32(step)}))
        server._round()
        for one, shown, twin in zip(opened, seen, twins):
            received = one.recv(65536)
            if step == 0:  # the hello comes first
                received = received[4 + int.from_bytes(received[:4], "big") :]
            texts, answer = decode(bytearray(received[4:]))
            assert texts["batch"] == "3" and texts["number"] == str(step)
            assert int(answer["action"]) == twin.act(shown, step == 0, float(step))
    assert agent.batches == [3] * 4
    server._end()
    for one in opened:
        one.close()


def test_a_client_that_dies_frees_its_place_and_its_state(tmp_path: Path) -> None:
    """It dies within a message; who has its place then begins with nothing, and the other goes on as before."""
    generator, twin = np.random.default_rng(3), Twin()
    with serving(at(tmp_path / "s"), slots=2) as server, Client(tmp_path / "s") as other:
        seen = [observed(generator) for _ in range(4)]
        assert other.act(seen[0], True, 0.0) == twin.act(seen[0], True, 0.0)
        dying = Client(tmp_path / "s")
        for shown in seen:
            dying.act(shown, reward=2.0)
        dying._socket.sendall(b"\x00\x00\x01\x00 and nothing more")
        assert server.clients == 2
        dying._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        dying.close()
        wait_until(lambda: server.clients == 1)
        assert other.act(seen[1], False, 3.0) == twin.act(seen[1], False, 3.0)
        with Client(tmp_path / "s") as heir:
            assert heir.act(seen[2], False, 4.0) == Twin().act(seen[2], True, 0.0)
    assert server.refused == 0


def test_who_finds_all_places_taken_is_told_so(tmp_path: Path) -> None:
    with serving(at(tmp_path / "s"), slots=1) as server:
        with Client(tmp_path / "s") as one:
            with pytest.raises(Refused, match=r"all 1 places are taken.*\[full\]"):
                Client(tmp_path / "s")
            assert one.act(observed(np.random.default_rng(0)), reward=0.0) >= 0
        wait_until(lambda: server.clients == 0)
        Client(tmp_path / "s").close()


@pytest.mark.parametrize("given", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 20])
def test_a_wrong_token_is_refused(given: str) -> None:
    listeners, address = by_tcp()
    with serving(listeners, token=TOKEN) as server:
        with pytest.raises(Refused, match=r"^the token is missing or wrong \[token\]$"):
            Client(address, given)
        assert server.clients == 0 and server.refused == 1
        with Client(address, TOKEN) as client:
            assert client.act(observed(np.random.default_rng(0)), reward=0.0) >= 0


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    listeners, address = by_tcp()
    with serving(listeners, token=TOKEN), pytest.raises(Refused):
        Client(address, "wrong")
    assert compared == [(b"wrong", TOKEN.encode())]
    with pytest.raises(ValueError, match="needs a token"):
        Server(ServedPolicy(Remembers()), by_tcp()[0])


def test_nobody_asks_before_the_hello() -> None:
    """Neither by a question, nor by a message that is longer than a hello may be."""
    listeners, address = by_tcp()
    arrays = {f"observation/{name}": array for name, array in observed(np.random.default_rng(0)).items()}
    with serving(listeners, token=TOKEN) as server:
        ((texts, _),) = asked_raw(address, encode("act", {"token": TOKEN}, arrays))
        assert (texts["code"], "must be of kind 'hello'" in texts["error"]) == ("protocol", True)
        ((texts, _),) = asked_raw(address, encode("hello", {"token": "x" * HELLO_BYTES}, {}))
        assert texts["code"] == "too_large" and server.answered == 0


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (b"\xff\xff\xff\xff" + bytes(500_000), "too_large", "4294967295 bytes was announced; at most "),
        (bytes(4), "malformed", "its header ends at byte 8, and it has 0"),
        (b"\x00\x00\x00\x09" + b"\xff" * 9, "malformed", "its header ends at byte"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "too_large", "bytes was announced"),
        (b'\x00\x00\x00\x0e\x06\x00\x00\x00\x00\x00\x00\x00{"a":1', "malformed", "no JSON"),
        (encode("act", {}, {}).replace(b'"offbeat": "1"', b'"offbeat": "2"'), "protocol", "protocol '2' is not spoken"),
    ],
)
def test_frames_that_cannot_be_read_end_the_connection(tmp_path: Path, sent: bytes, code: str, said: str) -> None:
    """One error, of one line; no other client notices."""
    generator, twin = np.random.default_rng(4), Twin()
    with serving(at(tmp_path / "s")) as server, Client(tmp_path / "s") as other:
        for step in range(3):
            shown = observed(generator)
            assert other.act(shown, step == 0, 1.0) == twin.act(shown, step == 0, 1.0)
            (hello, _), (texts, _) = asked_raw(tmp_path / "s", HELLO, sent)
            assert hello["kind"] == "hello" and texts["kind"] == "error" and texts["code"] == code
            assert said in texts["error"] and "\n" not in texts["error"]
            wait_until(lambda: server.clients == 1)


def test_a_long_message_is_never_held(tmp_path: Path) -> None:
    """Of one that is announced as too long nothing is kept, and of others no more than may come."""
    with serving(at(tmp_path / "s")) as server:
        most = server.policy.most_bytes
        (_, _), (texts, _) = asked_raw(tmp_path / "s", HELLO, (most + 1).to_bytes(4, "big"))
        assert texts["code"] == "too_large" and str(most) in texts["error"]
        with socket.socket(socket.AF_UNIX) as opened:
            opened.connect(str(tmp_path / "s"))
            opened.sendall(HELLO)
            wait_until(lambda: server.clients == 1)
            opened.sendall(most.to_bytes(4, "big") + bytes(most - 1))
            wait_until(lambda: len(server._connections[0]._in) == most + 3)
            assert len(server._connections[0]._in) <= 4 + most


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observation/place": np.zeros(3, np.float32)}, r"float32 \[3\]; it must be float32 \[2\]"),
        ({"observation/place": np.zeros(2)}, r"float64 \[2\]; it must be float32 \[2\]"),
        ({"observation/picture": np.zeros((1, 3, 3), np.int8)}, r"int8 \[1, 3, 3\]; it must be uint8"),
        ({"observation/place": None}, "lacks 'observation/place'"),
        ({"observation/more": np.zeros(1)}, "has 'observation/more'"),
        ({"action": np.zeros(1)}, "has 'action'"),
        ({"reward": None}, "send reward too"),
        ({"reward": np.float32("nan")}, "it must be a finite float32"),
        ({"reward": np.zeros(2, np.float32)}, r"float32 \[2\]; it must be a finite"),
        ({"kind": "sing"}, "a message of kind 'sing'; after the hello it must be 'act'"),
        ({"kind": "hello"}, "must be 'act'"),
        ({"first": "maybe"}, "first is 'maybe'"),
    ],
)
def test_a_question_that_is_none_is_refused_and_changes_nothing(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    generator, twin = np.random.default_rng(5), Twin()
    with serving(at(tmp_path / "s")) as server, Client(tmp_path / "s") as client:
        for step in range(4):
            shown = observed(generator)
            assert client.act(shown, step == 0, 2.0) == twin.act(shown, step == 0, 2.0)
            arrays: dict[str, Any] = {f"observation/{name}": array for name, array in observed(generator).items()}
            asked = {"kind": "act", "first": "0", **arrays, "reward": np.float32(0)} | change
            arrays = {name: asked[name] for name in asked if name not in ("kind", "first") and asked[name] is not None}
            with pytest.raises(Refused, match=said) as caught:
                client._ask(asked["kind"], {"first": asked["first"]}, arrays)
            assert caught.value.code == "request"
        assert server.refused == 4 and server.clients == 1


def test_a_first_question_needs_no_reward(tmp_path: Path) -> None:
    seen = observed(np.random.default_rng(0))
    with serving(at(tmp_path / "s")), Client(tmp_path / "s") as client:
        assert client.act(seen, first=True) == Twin().act(seen, True, 0.0)


def test_who_says_nothing_is_hung_up_on(tmp_path: Path) -> None:
    """By a clock that stands still between: who has said hello may be silent for ever, but not within a message."""
    clock = VirtualClock()
    server = Server(ServedPolicy(Remembers(), slots=2), at(tmp_path / "s"), clock=clock)
    mute, idle, halfway = (socket.socket(socket.AF_UNIX) for _ in range(3))
    for one in (mute, idle, halfway):
        one.settimeout(10)
        one.connect(str(tmp_path / "s"))
    for one in (idle, halfway):
        one.sendall(HELLO)
    while server.clients < 2:
        server._round()
    clock.sleep(WHOLE_S - 1)
    halfway.sendall(b"\x00\x00")
    server._round()
    assert len(server._connections) == 3
    clock.sleep(2)
    server._wake.send(b".")  # an event, so that nothing is waited for
    server._round()
    assert b'"late"' in mute.recv(65536) and server.clients == 2
    clock.sleep(WHOLE_S)
    server._round()
    assert server.clients == 1, "half a message is not waited for"
    clock.sleep(1000 + LINGER_S)
    server._round()
    assert [one.socket.fileno() for one in server._connections] and server.clients == 1 == len(server._connections)
    server._end()
    assert b'"ending"' in idle.recv(65536)
    for one in (mute, idle, halfway):
        one.close()


def test_strangers_are_not_let_in_without_end(tmp_path: Path) -> None:
    with serving(at(tmp_path / "s"), slots=1) as server:
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(STRANGERS)]
        for one in waiting:
            one.connect(str(tmp_path / "s"))
        wait_until(lambda: len(server._connections) == STRANGERS)
        with pytest.raises(Refused, match=r"too many connections.*\[full\]"):
            Client(tmp_path / "s")
        for one in waiting:
            one.close()
        wait_until(lambda: not server._connections)
        Client(tmp_path / "s").close()


def test_who_takes_no_answers_is_not_read_from(tmp_path: Path) -> None:
    """Answers that are not taken do not pile up: the next questions wait, and others are served meanwhile."""
    generator = np.random.default_rng(6)
    with serving(at(tmp_path / "s"), slots=2) as server, Client(tmp_path / "s") as other:
        deaf = socket.socket(socket.AF_UNIX)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        deaf.connect(str(tmp_path / "s"))
        deaf.sendall(HELLO)
        wait_until(lambda: server.clients == 2)
        arrays = {f"observation/{name}": array for name, array in observed(generator).items()}
        question = encode("act", {"first": "1", "number": "7"}, arrays)
        deaf.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                deaf.send(question)
        wait_until(lambda: any(one.busy for one in server._connections))
        one = next(one for one in server._connections if one.busy)
        twin = Twin()
        for step in range(5):
            seen = observed(generator)
            assert other.act(seen, step == 0, 0.0) == twin.act(seen, step == 0, 0.0)
        assert len(one._out) < 2000 and len(one._in) <= 4 + server.policy.most_bytes
        deaf.close()
        wait_until(lambda: server.clients == 1)


def test_the_end_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(at(path)) as server:
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
        client = Client(path)
        server.stop()
        wait_until(lambda: not path.exists())
        with pytest.raises((Refused, ConnectionError), match=r"\[ending\]|closed"):
            client.act(observed(np.random.default_rng(0)), reward=0.0)
        client.close()
    server.stop()  # harmless


def test_an_agent_that_fails_ends_the_server(tmp_path: Path) -> None:
    def fail(*given: Any) -> Any:
        raise RuntimeError("no such thing")

    def ask() -> None:
        with serving(at(tmp_path / "s")) as server, Client(tmp_path / "s") as client:
            server.policy.act = fail  # type: ignore[method-assign]
            with pytest.raises((Refused, ConnectionError)):
                client.act(observed(np.random.default_rng(0)), reward=0.0)

    with pytest.raises(RuntimeError, match="no such thing"):
        ask()
    assert not (tmp_path / "s").exists()


def test_errors_are_one_line() -> None:
    assert connection.one_line("a\nb\x1b[0m  c\ud800") == "a b [0m c"
    assert len(connection.one_line("x" * 9999)) == 500
