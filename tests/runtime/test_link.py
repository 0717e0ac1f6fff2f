"""Both ends of a role's pipe: whole messages only, however they arrive; a closed end is no error of the role."""

from __future__ import annotations

import json
import multiprocessing
import os
import struct
from typing import Any

import pytest

from offbeat.runtime.link import Inbox, Link, ParentGone


def frame(message: dict[str, Any]) -> bytes:
    """As multiprocessing sends it."""
    data = json.dumps(message).encode()
    return struct.pack("!i", len(data)) + data


def test_a_message_of_which_a_part_has_come_is_not_waited_for() -> None:
    here, there = multiprocessing.Pipe()
    inbox = Inbox(here)
    data = frame({"n": 1}) + frame({"n": 2})
    for cut in (0, 3, 4, 9, len(data) // 2 + 2):
        os.write(there.fileno(), data[:cut])
        first = list(inbox.messages())
        os.write(there.fileno(), data[cut:])
        assert first + list(inbox.messages()) == [{"n": 1}, {"n": 2}]


def test_many_and_large_messages_arrive_in_order() -> None:
    here, there = multiprocessing.Pipe()
    inbox, link = Inbox(here), Link(there)
    sizes = [0, 1, 16_000, 17_000, 70_000]
    got = []
    for size in sizes:
        link.write("episode", {"text": "x" * size})  # type: ignore[dict-item]
        link.result({"size": size})
        got += list(inbox.messages())
    assert [m["values"]["size"] for m in got if m["type"] == "result"] == sizes
    assert [len(m["records"][0][1]["text"]) for m in got if m["type"] == "records"] == sizes


def test_long_messages_have_a_longer_head() -> None:
    here, there = multiprocessing.Pipe()
    inbox = Inbox(here)
    data = b'{"n": 3}'
    os.write(there.fileno(), struct.pack("!i", -1) + struct.pack("!Q", len(data)))
    assert list(inbox.messages()) == []
    os.write(there.fileno(), data)
    assert list(inbox.messages()) == [{"n": 3}]


def test_a_dead_role_has_said_what_it_has_said() -> None:
    here, there = multiprocessing.Pipe()
    Link(there).error("no luck")
    os.write(there.fileno(), frame({"cut": "off"})[:7])
    there.close()
    assert list(Inbox(here).messages()) == [{"type": "error", "text": "no luck"}]


def test_a_closed_end_means_that_the_parent_is_gone() -> None:
    here, there = multiprocessing.Pipe()
    link = Link(there)
    here.close()
    for call in (
        lambda: link.command(0),
        lambda: link.result({}),
        lambda: link.error("x"),
        lambda: link.complaint("x"),
    ):
        with pytest.raises(ParentGone):
            call()
