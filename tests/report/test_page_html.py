"""HTML as values: text is escaped wherever it stands, numbers keep their exact value."""

from __future__ import annotations

import math

import pytest

from offbeat.report.page_html import duration, escaped, joined, name_of, number, share, shown, side_by_side, table, tag
from tests.report.page_runs import read_page

HOSTILE = ["<script>alert(1)</script>", "\"' onclick=x", "&lt;b&gt;", "]]>", "</td><b>", "--><b>", "<!--", "\u2028<i>"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text_in_elements_and_attributes(text: str) -> None:
    for made in (
        tag("p", text, title=text),
        table([text], [[text, text]], text),
        side_by_side([tag("b", text)], [(text, [text])]),
    ):
        page = read_page(made)
        allowed = {"p", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "b"}
        assert {node.name for node in page.all()} <= allowed
        assert text in page.text
    assert read_page(tag("p", title=text)).one("p").attributes["title"] == text


def test_what_cannot_be_shown_is_replaced() -> None:
    assert escaped("a\0b\x1b[31mc\u202ed") == "a\ufffdb\ufffd[31mc\ufffdd"
    assert escaped(b"run-\xff".decode("utf-8", "surrogateescape")) == "run-\\udcff"
    assert escaped("tab\tand\nline") == "tab\tand\nline"


def test_elements_are_put_together() -> None:
    assert tag("p", "a", None, tag("b", "c"), class_="d", data_e=1, hidden=True, id=None, open=False) == (
        '<p class="d" data-e="1" hidden>a<b>c</b></p>'
    )
    assert tag("meta", name="x") == '<meta name="x">' and joined(["<", None, tag("i")]) == "&lt;<i></i>"
    assert read_page(name_of("a.b_c")).text == "a.b_c" and name_of("a.b").count("<wbr>") == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.96, "0.96"), (12345, "12,345"), (-3.0, "−3"), (1234.5678, "1,235"), (0.123456, "0.1235"), (1e-7, "1e−07")],
)
def test_numbers_are_short_for_people_and_exact_for_programs(value: float, text: str) -> None:
    node = read_page(number(value)).one("data")
    assert node.text == text == shown(value) and float(node.attributes["value"] or "nan") == value


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "<b>", [1], True, {}])
def test_what_is_no_number_is_not_known(value: object) -> None:
    assert read_page(number(value)).one("span").text == "–"


def test_shares_and_durations() -> None:
    assert read_page(share(0.125)).one("data").text == "12.5%" and read_page(share(math.nan)).text == "–"
    texts = [read_page(duration(seconds)).text for seconds in (5.13, 60, 3599.6, 3600, 90061)]
    assert texts == ["5.1 s", "1 min 00 s", "1 h 00 min", "1 h 00 min", "25 h 01 min"]


def test_rows_in_which_runs_differ_stand_out() -> None:
    page = read_page(side_by_side([tag("b", "x"), tag("b", "y")], [("same", [1, 1]), ("other", [1, 2])]))
    classes = [node.attributes.get("class") for node in page.one("tbody").all("tr")]
    assert classes == ["same", "differs"] and [node.text for node in page.one("thead").all("th")] == ["x", "y"]
    alone = read_page(side_by_side([tag("b", "x")], [("same", [1])]))
    assert not list(alone.all("thead")) and [node.attributes for node in alone.all("tr")] == [{}]
