"""Time that processes were kept waiting: read from the system, and unknown where it says nothing."""

from __future__ import annotations

import builtins
import io
import math
import os
import sys
from typing import Any

import pytest

from offbeat.runtime.cpu_waits import run_queue_s, steal_s


def test_what_the_system_says_is_read_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "/proc/thread-self/schedstat": "111 2500000000 7\n",
        "/proc/stat": "cpu  1 2 3 4 5 6 7 350 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n",
    }
    monkeypatch.setattr(builtins, "open", lambda path, **_: io.StringIO(texts[path]))
    assert run_queue_s() == 2.5
    assert steal_s() == 350 / os.sysconf("SC_CLK_TCK")
    for path in texts:
        texts[path] = "nothing\n"
    assert math.isnan(run_queue_s())
    assert math.isnan(steal_s())


def test_unknown_where_there_is_no_such_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(builtins, "open", none)
    assert math.isnan(run_queue_s())
    assert math.isnan(steal_s())


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says it")
def test_they_never_go_back() -> None:
    first = run_queue_s(), steal_s()
    for before, after in zip(first, (run_queue_s(), steal_s()), strict=True):
        assert (after >= before >= 0) or math.isnan(after)
