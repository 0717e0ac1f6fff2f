"""The client's file: messages are safetensors, whatever is wrong with one is found, and NumPy is all that it needs."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from offbeat.serving import client
from offbeat.serving.client import Client, Refused, bench, decode, encode, main, named
from tests.serving.parts import TOKEN, at, by_tcp, observed, serving

FILE = Path(client.__file__)


def arrays_of(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Some arrays of any dtype and shape that may cross, empty ones too."""
    found = {}
    for index in range(generator.integers(0, 5)):
        shape = tuple(generator.integers(0, 4, generator.integers(0, 4)))
        kind = generator.choice(list(client.DTYPES.values()))
        found[f"name/{index} é"] = generator.integers(0, 2, shape).astype(kind)
    return found


def test_messages_are_those_of_the_safetensors_library_both_ways() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        given = arrays_of(generator)
        message = encode("act", {"first": "1"}, given)
        length, body = int.from_bytes(message[:4], "big"), message[4:]
        assert length == len(body)
        theirs = safetensors.numpy.load(bytes(body))
        texts, ours = decode(bytearray(body))
        assert texts == {"first": "1", "offbeat": "1", "kind": "act"}
        _, back = decode(bytearray(safetensors.numpy.save(given, {"a": "b"})))
        for found in (theirs, ours, back):
            assert found.keys() == given.keys()
            for name, array in given.items():
                assert found[name].dtype == array.dtype and found[name].shape == array.shape
                np.testing.assert_array_equal(found[name], array)


def test_numbers_of_the_other_byte_order_and_slices_cross() -> None:
    given = {"a": np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2], "b": np.float32(2)}
    _, found = decode(bytearray(encode("act", {}, given)[4:]))
    np.testing.assert_array_equal(found["a"], [[0, 2], [4, 6], [8, 10]])
    assert found["a"].dtype == np.float32 and found["b"].shape == ()
    found["a"][:] = 5  # it can be written to
    for wrong in (np.zeros(2, complex), np.array(["a"]), np.array([None]), np.zeros((1,) * 9)):
        with pytest.raises(ValueError, match="cannot be sent"):
            encode("act", {}, {"a": wrong})


def message(header: Any, data: bytes = b"", length: int | None = None) -> bytearray:
    """A message with a header of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return bytearray((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def one(**changed: Any) -> dict[str, Any]:
    """A header of one array, with something else about it."""
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changed}


@pytest.mark.parametrize(
    "body",
    [
        bytearray(), bytearray(7), message({}, length=3), message({}, length=2**63), message(b"{"), message([]),
        message(b"\xff\xfe"), message(b"[" * 100_000), message({"__metadata__": {"a": 1}}),
        message({"__metadata__": []}),
        message({}, b"left over"), message({"a": 5}), message(one(), b"1234"), message(one(), b"123456789"),
        message(one(dtype="F8_E4M3"), bytes(8)), message(one(dtype=[]), bytes(8)), message(one(shape=[3]), bytes(8)),
        message(one(shape=[-2]), bytes(8)), message(one(shape=[True, 2]), bytes(8)),
        message(one(shape=[2.0]), bytes(8)),
        message(one(shape="2"), bytes(8)), message(one(shape=[1] * 33 + [2]), bytes(8)),
        message(one(shape=[2**62, 2**62, 0], data_offsets=[0, 0])), message(one(data_offsets=[8, 16]), bytes(16)),
        message(one(data_offsets=[0]), bytes(8)), message(one(data_offsets=[0, 8, 8]), bytes(8)),
        message(one() | {"b": one()["a"]}, bytes(16)), message(one() | {"b": one()["a"]}, bytes(8)),
        message({"a": {"dtype": "F32", "shape": [2**22], "data_offsets": [0, 2**24]}}, bytes(8)),
    ],
)  # fmt: skip
def test_what_is_no_message_is_found(body: bytearray) -> None:
    with pytest.raises(ValueError, match=r"header|array") as caught:
        decode(body)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is ValueError


def test_a_header_is_not_believed_to_be_longer_than_the_message() -> None:
    for length in (3, 2**32, 2**63):
        with pytest.raises(ValueError, match=f"its header ends at byte {8 + length}, and it has 10"):
            decode(message({}, length=length))


def test_any_broken_message_is_a_value_error_or_reads_as_arrays_within_it() -> None:
    """Flip, cut and add bytes anywhere."""
    draw, generator = random.Random(1), np.random.default_rng(2)
    refused = 0
    for _ in range(3000):
        body = bytearray(encode("act", {"first": "0"}, arrays_of(generator))[4:])
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(min(len(body), 200))
            match draw.randrange(3):
                case 0:
                    body[place] = draw.randrange(256)
                case 1:
                    del body[place : place + draw.randint(1, 9)]
                case 2:
                    body[place:place] = draw.randbytes(3)
            if not body:
                break
        try:
            _, found = decode(body)
        except ValueError:
            refused += 1
            continue
        assert sum(array.nbytes for array in found.values()) <= len(body)
    assert refused > 1500


def test_parts_of_observations_get_dotted_names() -> None:
    zero, nested = np.zeros(2), {"arm": {"angles": 1, "hand": (2, 3)}, "eye": 4}
    assert named(zero, alone=True)["observation"] is zero
    assert named([1, 2], alone=True) == {"observation": [1, 2]}
    assert named(nested) == {"arm.angles": 1, "arm.hand.0": 2, "arm.hand.1": 3, "eye": 4}
    assert named((1, [2, 3])) == {"0": 1, "1": [2, 3]}
    assert named([1, 2]) == {"0": 1, "1": 2}, "an interface's own list stands for a tuple"


def test_numpy_is_all_that_it_needs(tmp_path: Path) -> None:
    tree = ast.parse(FILE.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"numpy"}
    copied = tmp_path / "copied.py"
    copied.write_text(FILE.read_text())
    program = "import copied, sys; print(sorted({'offbeat', 'torch', 'safetensors'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_it_measures_a_thousand_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(at(tmp_path / "s")) as server:
        assert main([str(tmp_path / "s"), "--bench", "1000"]) == 0
        assert server.answered == 1000 and server.refused == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("adds up of remembering, weights ") and lines[1].startswith("1000 actions")
    assert lines[3].split() == ["milliseconds", "p50", "p90", "p99", "longest"]
    found = {line[:22].strip(): [float(word) for word in line[22:].split()] for line in lines[4:]}
    assert list(found) == ["question to answer", "on the way", "in the server", "its forward"]
    for name, times in found.items():
        assert times == sorted(times) and times[0] >= 0, name
    assert found["question to answer"][0] >= found["in the server"][0] >= found["its forward"][0] > 0


def test_it_reads_its_token_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners, (host, port) = by_tcp()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with serving(listeners, token=TOKEN):
        assert main([f"{host}:{port}", "--bench", "3", "--token-file", str(tmp_path / "token")]) == 0
        monkeypatch.setenv(client.TOKEN, TOKEN)
        assert main([f"{host}:{port}", "--bench", "3"]) == 0
        monkeypatch.setenv(client.TOKEN, "another")
        capsys.readouterr()
        assert main([f"{host}:{port}"]) == 2
    assert "the token is missing or wrong [token]" in capsys.readouterr().err
    assert main([str(tmp_path / "nobody")]) == 2


def test_a_late_answer_is_passed_over(tmp_path: Path) -> None:
    """The client goes on after a timeout, and never takes an answer for that of another question."""
    generator = np.random.default_rng(0)
    with serving(at(tmp_path / "s")) as server, Client(tmp_path / "s") as asked, Client(tmp_path / "s") as twin:
        act, held = server.policy.act, [True]

        def slow(*given: Any) -> Any:
            if held.pop() if held else False:
                waited.wait(0.5)
            return act(*given)

        waited = threading.Event()
        server.policy.act = slow  # type: ignore[method-assign]
        asked.timeout = 0.1
        seen = [observed(generator) for _ in range(3)]
        with pytest.raises(TimeoutError, match="no answer within"):
            asked.act(seen[0], first=True, reward=0.0)
        waited.set()
        asked.timeout = 10.0
        after = [asked.act(one, reward=1.0) for one in seen[1:]]
        twin.act(seen[0], reward=0.0)
        assert after == [twin.act(one, reward=1.0) for one in seen[1:]]


def test_what_cannot_be_sent_is_said_before_it_is(tmp_path: Path) -> None:
    seen = observed(np.random.default_rng(0))
    with serving(at(tmp_path / "s")) as server, Client(tmp_path / "s") as asked:
        with pytest.raises(TypeError, match=r"[Cc]annot cast"):
            asked.act(seen | {"picture": np.zeros((1, 3, 3))}, reward=0.0)
        with pytest.raises(Refused, match="the server takes"):
            asked.act(seen | {"place": np.zeros(100_000)}, reward=0.0)
        assert asked.act(seen | {"place": [1, 2]}, reward=0.0) >= 0
        assert bench(asked, 2) and server.refused == 0
