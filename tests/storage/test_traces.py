"""The file format of action traces: what is written comes back, and nothing else is ever taken for it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.errors import UserError
from offbeat.storage import traces
from offbeat.storage.traces import MAGIC, Trace, TraceError, pack, read_trace, shown, unpack, write_trace

FACTS = {"env": {"id": "Pong", "sticky": 0.25, "delay": {"low": 1}}, "seed": 2**63 - 1, "ids": ["a", "b"], "who": "ä\n"}
ARRAYS = {
    "action": np.arange(40, dtype=np.uint8) % 6,
    "reward": np.array([0.0, -0.0, 1.5, np.nan, np.inf], np.float32),
    "score": np.array([1 / 3, 1e300], np.float64),
    "none": np.zeros((0, 3), np.int64),
    "plane": np.arange(6, dtype=np.int32).reshape(2, 3),
}


def alike(one: Trace, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
    """Facts equal, arrays equal bit for bit."""
    return one.facts == facts and one.arrays.keys() == arrays.keys() and all(
        one.arrays[name].dtype == array.dtype
        and one.arrays[name].shape == array.shape
        and one.arrays[name].tobytes() == array.tobytes()
        for name, array in arrays.items()
    )  # fmt: skip


def made(content: Any, body: bytes = b"", **sizes: int) -> bytes:
    """A file by hand, its hash right. ``sizes``: what it says of itself instead: version, head, packed."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    one, two = zlib.compress(text), zlib.compress(body)
    said = sizes.get("version", 1), len(one), sizes.get("head", len(text)), sizes.get("packed", len(two))
    digest = hashlib.sha256(MAGIC + struct.pack("<IIIQ", 1, 0, len(text), len(body)) + text + body).digest()
    return MAGIC + struct.pack("<IIIQ", *said) + one + two + digest


def listing(*arrays: Any, **more: Any) -> dict[str, Any]:
    """A head."""
    return {"facts": {}, "arrays": list(arrays), "marks": {}} | more


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "new" / "a.trace", pack(FACTS, ARRAYS))
    trace = read_trace(path)
    assert alike(trace, FACTS, ARRAYS)
    assert trace.content == pack(FACTS, ARRAYS)[-32:].hex() and len(trace.content) == 64
    assert os.listdir(path.parent) == ["a.trace"], "no draft is left"
    assert unpack(pack({}, {})).arrays == {}


def test_a_file_by_hand_is_the_same_file() -> None:
    """The layout, from its description."""
    listed = [["x", "uint16", [2]]]
    facts: dict[str, Any] = {"b": 1, "a": {"c": "d"}}
    body = np.array([1, 770], "<u2").tobytes()
    marks = {
        name: hashlib.sha256(data).hexdigest()[:8] for name, data in (("a.c", b'"d"'), ("array x", body), ("b", b"1"))
    }
    text = json.dumps({"facts": facts, "arrays": listed, "marks": marks}, sort_keys=True, separators=(",", ":"))
    trace = unpack(made(text.encode(), body))
    assert alike(trace, facts, {"x": np.array([1, 770], np.uint16)})
    assert trace.content == unpack(pack(facts, {"x": np.array([1, 770], np.uint16)})).content


def test_the_hash_is_of_what_is_in_it_not_of_how_it_was_packed() -> None:
    data = pack(FACTS, ARRAYS)
    _, packed_head, head, packed_body = struct.unpack("<IIIQ", data[16:36])
    parts = data[36 : 36 + packed_head], data[36 + packed_head : 36 + packed_head + packed_body]
    other = [zlib.compress(zlib.decompress(part), 1) for part in parts]
    sizes = struct.pack("<IIIQ", 1, len(other[0]), head, len(other[1]))
    again = unpack(MAGIC + sizes + b"".join(other) + data[-32:])
    assert alike(again, FACTS, ARRAYS) and again.content == unpack(data).content


def test_random_damage_is_never_taken_for_a_trace() -> None:
    """Whatever is done to the bytes, what is read is what was written, or there is one line."""
    data, rng = pack(FACTS, ARRAYS), random.Random(0)
    for trial in range(4000):
        broken = bytearray(data)
        kind = trial % 4
        at = rng.randrange(len(broken))
        if kind == 0:
            broken[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del broken[at : at + rng.randrange(1, 40)]
        elif kind == 2:
            broken[at:at] = rng.randbytes(rng.randrange(1, 40))
        else:
            broken[at : at + 8] = rng.randbytes(8)
        try:
            found, said = unpack(bytes(broken)), ""
        except TraceError as error:
            found, said = None, str(error)
        assert found is None or alike(found, FACTS, ARRAYS), f"trial {trial}"
        assert "\n" not in said and len(said) < 400


def test_each_flipped_bit_of_what_is_packed_is_seen() -> None:
    """With packing out of the way every single bit counts."""
    text = json.dumps(listing(["x", "uint8", [4]])).encode()
    for at in range(8 * 4):
        body = bytearray(b"abcd")
        whole = made(text, bytes(body))
        body[at // 8] ^= 1 << at % 8
        with pytest.raises(TraceError, match="content hash does not fit"):
            unpack(made(text, bytes(body))[:-32] + whole[-32:])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("env.sticky", 0.0, "env.sticky changed"),
        ("env.delay.low", 2, "env.delay.low changed"),
        ("seed", 4, "seed changed"),
        ("array action", 5, "array action changed"),
        ("array score", 5.0, "array score changed"),
    ],
)
def test_what_was_changed_is_named_where_the_hash_is_not_made_anew(name: str, value: Any, said: str) -> None:
    facts: dict[str, Any] = json.loads(json.dumps(FACTS))
    arrays = {key: array.copy() for key, array in ARRAYS.items()}
    if name.startswith("array "):
        arrays[name.removeprefix("array ")][1] = value
    else:
        *parts, last = name.split(".")
        place = facts
        for part in parts:
            place = place[part]
        place[last] = value
    before, after = pack(FACTS, ARRAYS), pack(facts, arrays)
    # the new contents under the old marks and the old hash
    marks = json.loads(inflated(before))["marks"]
    head = json.loads(inflated(after)) | {"marks": marks}
    body = b"".join(array.tobytes() for array in arrays.values())
    with pytest.raises(TraceError) as caught:
        unpack(made(head, body)[:-32] + before[-32:], "a.trace")
    assert str(caught.value) == f"a.trace: its content hash does not fit: {said} after it was written"
    assert caught.value.trace is not None and alike(caught.value.trace, facts, arrays)


def inflated(data: bytes) -> bytes:
    """The head of a file."""
    return zlib.decompress(data[36 : 36 + struct.unpack("<I", data[20:24])[0]])


DEEP = b"[" * 100_000 + b"]" * 100_000
HOSTILE = {
    "nothing": (b"", "does not begin"),
    "text": (b"hello", "does not begin"),
    "only the beginning": (MAGIC, "cut short: 16 bytes"),
    "another format": (made(listing(), version=2), "format 2 is not 1"),
    "a body that is not there": (made(listing(), packed=9), "its sizes say"),
    "a giant body": (made(listing(), packed=2**63), "its sizes say"),
    "a giant head": (made(listing(), head=2**31), "a head of 2,147,483,648 bytes"),
    "a longer head": (made(listing(), head=2**20), "does not have the 1,048,576 bytes"),
    "a shorter head": (made(listing(), head=3), "does not have the 3 bytes"),
    "no JSON": (made(b"\xff{"), "head is damaged"),
    "deep JSON": (made(b'{"facts":' + DEEP + b',"arrays":[],"marks":{}}'), "head is damaged"),
    "a list": (made([1, 2]), "lacks facts, arrays or marks"),
    "no facts": (made({"arrays": [], "marks": {}}), "lacks facts, arrays or marks"),
    "NaN": (made(b'{"facts":{"a":NaN},"arrays":[],"marks":{}}'), "NaN is no number"),
    "objects": (made(listing(["x", "object", [1]])), "describes no array"),
    "a dtype as a list": (made(listing(["x", ["uint8"], [1]])), "describes no array"),
    "a negative shape": (made(listing(["x", "uint8", [-1]])), "describes no array"),
    "a shape of truth": (made(listing(["x", "uint8", [True]])), "describes no array"),
    "a shape of floats": (made(listing(["x", "uint8", [1.0]])), "describes no array"),
    "no shape": (made(listing(["x", "uint8"])), "describes no array"),
    "nine axes": (made(listing(["x", "uint8", [1] * 9]), b"a"), "describes no array"),
    "axes that are too long beside none": (made(listing(["x", "uint8", [0, 2**27, 2**27, 2**27]])), "describes no"),
    "twice the same": (made(listing(["x", "uint8", [1]], ["x", "uint8", [1]]), b"ab"), "describes no array"),
    "too many": (made(listing(*(["x", "uint8", [0]] for _ in range(33)))), "33 arrays"),
    "too much": (made(listing(["x", "uint8", [2**27]], ["y", "uint8", [1]])), "more than the 134,217,728 bytes"),
    "more than there is": (made(listing(["x", "uint8", [2**27]]), b"abc"), "does not have the 134,217,728 bytes"),
    "less than there is": (made(listing(["x", "uint8", [2]]), b"abc"), "does not have the 2 bytes"),
    "a bomb": (made(listing(["x", "uint8", [3]]), bytes(50 << 20)), "does not have the 3 bytes"),
    "another hash": (made(listing())[:-1] + b"!", "content hash does not fit: something in it, or the hash itself"),
    "a number that is too large": (made(b'{"facts":{"a":1e999},"arrays":[],"marks":{}}')[:-1] + b"!", "does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_cost_a_line_and_no_memory(name: str) -> None:
    data, said = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(TraceError) as caught:
            unpack(data, "a.trace")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.trace: ")
    assert most < 16 << 20


def test_facts_too_deep_to_be_marked_are_refused_in_a_line() -> None:
    facts: Any = 1
    for _ in range(900):
        facts = {"a": facts}
    head = listing(facts=facts)
    with pytest.raises(TraceError, match=r"does not fit|damaged"):
        unpack(made(head)[:-1] + b"!")


def test_what_cannot_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="array 'x' is of object"):
        pack({}, {"x": np.array([None])})
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack({"a": float("nan")}, {})
    monkeypatch.setattr(traces, "MOST_BODY", 10)
    with pytest.raises(TraceError, match="play fewer episodes"):
        pack({}, {"x": np.zeros(11, np.uint8)})


def test_only_regular_files_of_a_sane_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").touch()
    os.truncate(tmp_path / "long", 1 << 40)
    for name, said in (("pipe", "no file"), ("long", "bytes are no action trace"), ("gone", "No such file")):
        with pytest.raises(TraceError, match=said):
            read_trace(tmp_path / name)
    with pytest.raises(TraceError, match="no file"):
        read_trace(tmp_path)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    with pytest.raises(UserError, match="cannot be written"):
        write_trace(tmp_path / "file" / "a.trace", b"")
    (tmp_path / "b.trace").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_trace(tmp_path / "b.trace", b"data")
    assert sorted(os.listdir(tmp_path)) == ["b.trace", "file"]


def test_text_out_of_a_file_does_nothing_to_a_terminal() -> None:
    assert shown("Pong") == "Pong" and shown(3) == "3"
    for text in ("\x1b[2J", "a\nb", "\ud800", "x" * 1000):
        assert shown(text).isprintable() and len(shown(text)) <= 60
