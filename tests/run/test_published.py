"""Published scores of a campaign file: by hours, frames or agent steps, and what is none of these."""

from __future__ import annotations

from typing import Any

import pytest

from offbeat.errors import UserError
from offbeat.run.published import Published, read_published


def test_a_plain_list_is_by_hours() -> None:
    (curve,) = read_published([[5, 24_200], [37.9, 74_000]], "asterix")
    assert curve == Published(((5.0, 24_200.0), (37.9, 74_000.0)), "hours", "")
    assert curve.axis == "seconds"
    assert curve.placed() == [(18_000.0, 24_200.0), (37.9 * 3600, 74_000.0)]
    assert read_published([], "asterix") == ()


@pytest.mark.parametrize("by", ["frames", "agent_steps"])
def test_tables_say_what_they_are_by(by: str) -> None:
    uniform = {"name": "uniform", "by": by, "points": [[1_000_000, 15.7], [12e6, 460.1]]}
    elite = {"by": by, "points": [[1_000_000, 16.5]]}
    curves = read_published([uniform, elite], "breakout")
    assert [curve.name for curve in curves] == ["uniform", ""]
    assert [curve.axis for curve in curves] == [by, by]
    assert curves[0].placed() == [(1e6, 15.7), (12e6, 460.1)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "published of 'x' must be a list of .hours, score. or tables"),
        ([1, 2], "published of 'x' must be a list of .hours, score.: "),
        ([[1, 2, 3]], "published of 'x' must be a list of .hours, score.: too many"),
        ([[1, float("nan")]], "finite numbers"),
        ([{"points": [[1, 2]], "bye": "frames"}], "unknown key 'bye' in published of 'x'; did you mean 'by'"),
        ([{"points": [[1, 2]], "by": "updates"}], "by='updates' must be one of hours, frames, agent_steps"),
        ([{"points": [[1, 2]], "name": 3}], "name=3 must be text"),
        ([{"points": [1, 2], "by": "frames"}], "points must be a list of .frames, score."),
        ([{"by": "frames"}], "points must be a list of .frames, score."),
        ([{"points": []}], "points must be a list of .hours, score., finite numbers, got .."),
        (
            [{"points": [[1, 2]]}, {"points": [[1, 2]], "by": "frames"}],
            "published of 'x' are by frames and by hours, which are drawn in no common picture",
        ),
    ],
)
def test_mistakes_are_named(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_published(given, "x")
