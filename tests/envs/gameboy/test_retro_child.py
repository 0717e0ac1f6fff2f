"""What is spoken with the process of stable-retro, without it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from offbeat.envs.gameboy import retro_child


class Echo:
    """Answers with what it was asked."""

    def __init__(self, rom: str) -> None:
        if rom == "none":
            raise RuntimeError("no such cartridge")

    def run(self, request: dict[str, Any], data: bytes) -> bytes:
        return bytes([request["frames"]]) + data

    def load(self, request: dict[str, Any], data: bytes) -> bytes:
        raise ValueError(f"{len(data)} bytes")


def spoken(rom: str, *requests: tuple[dict[str, Any], bytes]) -> bytes:
    lines = [json.dumps({**request, "bytes": len(data)}).encode() + b"\n" + data for request, data in requests]
    answers = io.BytesIO()
    retro_child.serve(rom, io.BytesIO(b"".join(lines)), answers)
    return answers.getvalue()


def test_requests_and_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retro_child, "Game", Echo)
    assert spoken("x", ({"do": "run", "frames": 7}, b"a\nb"), ({"do": "load"}, b"xyz")) == (
        b"\0\4\0\0\0\0\0\0\0\7a\nb" + b"\1\7\0\0\0\0\0\0\0003 bytes"
    )
    assert spoken("none", ({"do": "run", "frames": 1}, b"")) == b"\1\x11\0\0\0\0\0\0\0no such cartridge"
    assert spoken("x") == b""
