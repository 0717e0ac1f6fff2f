"""Numbers in memory, by hand."""

from __future__ import annotations

from offbeat.envs.gameboy.values import KINDS, Value, Watched


def test_types() -> None:
    data = bytes([0x12, 0x34, 0x56])
    assert Value(0, ">u2").decode(data[:2]) == 0x1234 and Value(0, "|u2").decode(data[:2]) == 0x3412
    assert Value(0, ">u3").decode(data) == 0x123456 and Value(0, "<u3").decode(data) == 0x563412
    assert Value(0, ">d3").decode(data) == 123456 and Value(0, "<d3").decode(data) == 563412
    assert Value(0, "|d2").decode(data[:2]) == 3412
    assert Value(0, "|i1").decode(b"\xff") == -1 and Value(0, "|u1").decode(b"\xff") == 255


def test_several_are_read_together() -> None:
    watched = Watched({"a": Value(0xC000, ">u2"), "b": Value(0xFFE1, "|i1")})
    assert watched.places == ((0xC000, 2), (0xFFE1, 1))
    assert watched.decode([b"\x01\x02", b"\xfe"]) == {"a": 258, "b": -2}


def test_what_a_type_is() -> None:
    assert all(KINDS.fullmatch(kind) for kind in ("|u1", "<d4", ">i8"))
    assert not any(KINDS.fullmatch(kind) for kind in ("u1", "|n1", ">u9", "|u", ""))
