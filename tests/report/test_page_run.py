"""The cards about the run itself: options beside the preset's, speed, time line, books, machine."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offbeat.config.run_config import load_preset
from offbeat.report.page_facts import Facts, read_facts
from offbeat.report.page_parts import columns
from offbeat.report.page_run import books, machine, options, realtime, speed
from offbeat.report.trace import Lane, shares
from offbeat.runtime.spans import SPAN
from tests.report.page_runs import LEDGER, Node, full_run, read_page

RATE = str(load_preset("impala-atari").learner.learning_rate)
"""The preset's learning rate."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Facts]:
    """The preset, and a run with other options."""
    folder = tmp_path_factory.mktemp("runs")
    changed = (("learner.learning_rate", "0.001"), ("env", "Breakout"), ("eval_env.noop_max", "7"))
    made = [full_run(folder / "usual", 0, episodes=20), full_run(folder / "changed", 1, episodes=20, options=changed)]
    return [read_facts(run) for run in made]


def labels(page: Node) -> list[str]:
    """Headings of the rows of the first table."""
    return [row.one("th").text for row in next(page.all("tbody")).all("tr")]


def test_options_that_are_the_presets_are_not_listed(runs: list[Facts]) -> None:
    page = read_page(options(columns(runs[:1])))
    assert "every option is the preset's" in page.text
    assert page.row("learner.learning_rate")[0].text == RATE


def test_options_that_differ_stand_beside_the_presets(runs: list[Facts]) -> None:
    page = read_page(options(columns(runs[1:])))
    assert sorted(labels(page)) == ["env.id", "eval_env.noop_max", "learner.learning_rate"]
    assert page.row("learner.learning_rate")[0].text == f"0.001 preset: {RATE}"
    assert page.row("env.id")[0].text == "Breakout preset: Pong"
    # eval_env.id, valid_env.id and final_env.id follow env.id, in the preset too.
    assert page.row("eval_env.id")[0].text == "Breakout"


def test_runs_side_by_side_show_where_they_differ(runs: list[Facts]) -> None:
    page = read_page(options(columns(runs)))
    assert [cell.text for cell in page.row("learner.learning_rate")] == [RATE, f"0.001 preset: {RATE}"]
    classes = {
        row.one("th").text: row.attributes["class"] for row in page.all("tr") if list(row.all("th", scope="row"))
    }
    assert classes["learner.learning_rate"] == "differs" and classes["learner.batch_size"] == "same"
    assert "seed" not in classes and "out" not in classes


def test_what_auto_chose_is_no_change(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", episodes=20, options=(("device", "cpu"), ("learner.device", "cpu")))
    page = read_page(options(columns([read_facts(run)])))
    assert page.row("device")[0].text == "cpu from auto" and not list(page.all("span", class_="own"))


@pytest.mark.parametrize("preset", ["of-tomorrow", "<b>", "../../x.toml", ""])
def test_unknown_presets_are_compared_with_the_defaults(runs: list[Facts], preset: str) -> None:
    facts = replace(runs[0], config=runs[0].config | {"preset": preset})
    page = read_page(options(columns([facts])))
    said = f"preset {preset!r} does not come with this version" if preset else "the run has no preset"
    assert f"{said}; its options are compared with the defaults" in page.text
    assert "preset: " in page.row("learner.learning_rate")[0].text


def test_options_that_an_older_version_did_not_have(runs: list[Facts]) -> None:
    config = json.loads(json.dumps(runs[0].config))
    del config["learner"]["learning_rate"]
    older = replace(runs[0], config=config | {"gone": {"<i>": 1}})
    page = read_page(options(columns([older, runs[0]])))
    assert "every option is the preset's" in page.text
    assert [cell.text for cell in page.row("learner.learning_rate")] == ["-", RATE]
    assert [cell.text for cell in page.row("gone.<i>")] == ["1", "-"]


def test_a_run_whose_options_are_lost_is_compared_with_nothing(runs: list[Facts]) -> None:
    lost = replace(runs[0], config={})
    page = read_page(options(columns([lost, runs[1]])))
    assert "its options are not known" in page.text and len(page.row("env.id")) == 1
    assert sorted(labels(page)) == ["env.id", "eval_env.noop_max", "learner.learning_rate"]
    assert next(node.text for node in read_page(options(columns([lost]))).all("p")).endswith(
        "its options are not known."
    )


def test_speed_is_that_of_the_files(runs: list[Facts]) -> None:
    rates = {"actor_frames_per_s": [0.0, 90.0, 70.0], "learner_frames_per_s": [math.nan, 400.0, 500.0]}
    progress = {"seconds": np.array([60.0, 120.0, 180.0])} | {name: np.array(rate) for name, rate in rates.items()}
    facts = replace(runs[0], progress=progress)
    page = read_page(speed(columns([facts])))
    assert page.row("frames per second, all of the run")[0].values == [80_000 / 180]
    assert page.row("actors, newest period")[0].values == [70] and page.row("learner, newest period")[0].values == [500]
    assert page.row("learner waits for batches")[0].values == [2 / 8]
    assert page.row("actors wait for room")[0].values == [2 / 12]
    picture = page.one("svg", class_="chart")
    told = {one["name"]: one for one in json.loads(picture.attributes["data-hover"] or "")["series"]}
    assert (told["actors"]["x"], told["actors"]["y"]) == ([1, 2, 3], [0, 90, 70])
    assert (told["learner"]["x"], told["learner"]["y"]) == ([2, 3], [400, 500])
    learner, actors = page.all("svg", class_="bars")
    assert learner.attributes["aria-label"] == "learner: training 75%, waiting 25%"
    assert actors.attributes["aria-label"] == "2 actors: environments 58%, choosing actions 25%, waiting 17%"
    assert [one.attributes["width"] for one in actors.all("rect")] == ["58.33%", "25.00%", "16.67%"]


def test_a_recorded_time_line_is_drawn(runs: list[Facts]) -> None:
    spans = np.array([(0, 0, 400), (1, 400, 1000)], SPAN)
    lane = Lane("actor-<0>", 1, "main", 0, 1000, 0, ("environment", "wait for room"), spans)
    page = read_page(speed(columns([replace(runs[0], lanes=[lane])])))
    drawn = list(page.all("svg", class_="bars"))[-1]
    assert drawn.attributes["aria-label"] == "time line of actor-<0>"
    assert [one.attributes["fill"] for one in drawn.all("path")] == ["#0072B2", "#D9D9D9"]
    rows = [(row.values, row.text) for row in page.one("details", id="spans").one("tbody").all("tr")]
    expected = [[float(one.calls), one.share] for one in shares(lane) if one.share > 0]
    assert [values for values, _ in rows] == expected == [[1, 0.6], [1, 0.4]]
    many = [replace(lane, role=f"actor-{place}") for place in range(30)]
    assert "6 more threads" in read_page(speed(columns([replace(runs[0], lanes=many)]))).text


def test_the_books_are_those_of_the_ledger(runs: list[Facts]) -> None:
    page = read_page(books(columns(runs[:1])))
    for name, count in LEDGER.items():
        assert page.row(f"rows {name}")[0].values == [count]
    assert page.row("the books close")[0].text == "yes" and page.row("roles that were replaced")[0].values == [1]
    assert page.row("updates left out (not finite)")[0].values == [3]
    assert page.row("unrolls or items overwritten before they were read")[0].values == [2]
    trouble, end = page.all("details")
    assert "lines of run.log worth a look: 1" in trouble.text and "actor-1 died; replaced" in trouble.one("pre").text
    assert "main started" in end.one("pre").text and "main started" not in trouble.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lost", "no: stored + expired + lost + in_hand"),
        ("fifo0/pending", "no: fifo0/trained + fifo0/pending + fifo0/skipped"),
    ],
)
def test_books_that_do_not_close_are_said(runs: list[Facts], name: str, said: str) -> None:
    ledger = runs[0].records["ledger"][0] | {name: LEDGER[name] + 1}
    facts = replace(runs[0], records=runs[0].records | {"ledger": [ledger]})
    assert read_page(books(columns([facts]))).row("the books close")[0].text.startswith(said)


def test_books_of_a_run_that_goes_on(runs: list[Facts]) -> None:
    page = read_page(books(columns([replace(runs[0], records={}, newest={}, log=[])])))
    assert "The ledger is written when a run ends." in page.text and "the books close" not in page.text
    assert page.row("updates left out (not finite)")[0].text == "–" and not list(page.all("details"))


def test_the_machine_is_that_of_the_file(runs: list[Facts]) -> None:
    page = read_page(machine(columns(runs)))
    known = runs[0].environment
    assert [cell.text for cell in page.row("processor")] == [known["machine"]["processor"]] * 2
    assert page.row("torch")[0].text == known["versions"]["torch"] and page.row("python")[0].text == known["python"]
    assert page.row("command")[0].text == "offbeat train impala-atari"
    assert page.row("run")[1].text == str(runs[1].run)
    assert read_page(machine(columns([replace(runs[0], environment={})]))).row("python")[0].text == "–"


def test_realtime_numbers_stand_where_there_are_any(runs: list[Facts]) -> None:
    assert realtime(columns(runs)) is None
    counted = {"fps": 60.0, "missed": 3, "inaction_share": 0.25, "staleness": {"mean": 2.5},
               "latency_s": {"inference": {"p50": 0.004}}}  # fmt: skip
    made = realtime(columns([runs[0], replace(runs[1], realtime=counted)]))
    assert made is not None
    page = read_page(made)
    shown = {label: page.row(label)[1].text for label in labels(page)}
    assert shown["frames missed"] == "3" and shown["staleness, mean (frames)"] == "2.5"
    assert shown["inference, p50 (ms)"] == "4" and shown["frames left to the default behaviour"] == "25.0%"
    assert {page.row(label)[0].text for label in labels(page)} == {"–"}
