"""What is said of an attempt that fails."""

from __future__ import annotations

from offbeat.errors import failure


def test_a_failure_is_told_in_one_line() -> None:
    def raises() -> bool:
        raise OSError("two\n  lines" + " and more" * 100)

    assert failure(lambda: True) == ""
    assert failure(lambda: False) == "it gives other results"
    assert failure(raises).startswith("OSError: two lines and more")
    assert len(failure(raises)) <= 200
