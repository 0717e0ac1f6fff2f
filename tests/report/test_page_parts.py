"""The cards about scores: every number on them is the one in the run's files."""

from __future__ import annotations

import base64
import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest

from offbeat.config.run_config import load_preset
from offbeat.report import page_parts
from offbeat.report.curves import running_mean, summarise
from offbeat.report.page_facts import Facts, read_facts
from offbeat.report.page_parts import Column, columns, curves, evaluations, films, glance
from offbeat.run.records import evaluations as records_of
from tests.report.page_runs import Node, full_run, read_page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Facts]:
    """Two seeds of one setting, and another one."""
    folder = tmp_path_factory.mktemp("runs")
    made = [full_run(folder / f"seed{seed}", seed) for seed in range(2)]
    made.append(full_run(folder / "fast", 2, episodes=60, options=(("learner.learning_rate", "0.001"),)))
    return [read_facts(run) for run in made]


def hovered(picture: Node) -> dict[str, dict[str, list[float]]]:
    """Name of a series -> its numbers, as the pointer finds them."""
    told = json.loads(picture.attributes["data-hover"] or "")
    return {one["name"]: one for one in told["series"]}


def test_runs_have_names_that_tell_them_apart_and_the_colour_of_their_setting(
    runs: list[Facts], tmp_path: Path
) -> None:
    assert [(one.name, one.colour) for one in columns(runs)] == [("seed0", 0), ("seed1", 0), ("fast", 1)]
    same = [full_run(tmp_path / name / "run", episodes=20) for name in ("a", "b")]
    assert [one.name for one in columns([read_facts(run) for run in same])] == ["a/run", "b/run"]
    assert {one.name for one in columns([runs[0], runs[0]])} == {str(runs[0].run).replace("/", "//", 1)}


def test_at_a_glance_stands_what_the_files_say(runs: list[Facts]) -> None:
    page = read_page(glance(columns(runs)))
    for place, facts in enumerate(runs):
        known, last = summarise(facts.curve), records_of(facts.run)[-1]

        def values(label: str, place: int = place) -> list[float]:
            return page.row(label)[place].values

        assert values("seed") == [known["seed"]] and values("frames") == [known["frames"], facts.total_frames]
        assert values("updates") == [known["updates"]] and values("wall time") == [facts.seconds]
        assert values("training return") == pytest.approx([known["training"]], abs=1e-4)
        assert values("last evaluation") == [last["mean"], last["low"], last["high"], last["frames"]]
        best = page.row("best evaluation")[place].values
        assert round(best[0], 4) == known["best"] and best[3] == known["best_at_frames"]
        assert values("best validation") == [-7.25] and values("mean over final test sets") == [3.5]
        assert page.row("state")[place].text == facts.state and page.row("environment")[place].text == "Pong"
    classes = {row.one("th").text: row.attributes["class"] for row in page.one("tbody").all("tr")}
    assert classes["environment"] == "same" and classes["seed"] == "differs"


def test_curves_are_those_of_the_metrics(runs: list[Facts]) -> None:
    page = read_page(curves(columns(runs[:1])))
    over_frames, over_time = page.all("svg", class_="chart")
    curve = runs[0].curve
    mean = running_mean(curve.episode_return, 20)
    series = hovered(over_frames)
    line, dots, rings = (series[f"seed0{kind}"] for kind in ("", ", evaluation", ", validation"))
    assert line["x"] == pytest.approx(curve.episode_at[1:, 0], rel=1e-5) and line["y"] == pytest.approx(
        mean[1:], rel=1e-5
    )
    assert dots["x"] == pytest.approx(curve.eval_at[:, 0]) and dots["y"] == pytest.approx(curve.eval_mean, rel=1e-5)
    assert np.stack([dots["low"], dots["high"]], 1) == pytest.approx(curve.eval_interval, rel=1e-5)
    assert rings["x"] == [400_000, 400_000] and rings["y"] == [-7.25, -9.5]
    assert len(list(over_frames.all("circle", class_="dots"))) == len(curve.eval_mean) == 5
    assert hovered(over_time)["seed0"]["x"] == pytest.approx(curve.episode_at[1:, 2] / 1.0, rel=1e-5)
    assert "mean of the last 20 episodes" in page.text


def test_seeds_of_a_setting_have_a_mean_and_a_range(runs: list[Facts]) -> None:
    page = read_page(curves(columns(runs)))
    picture = next(page.all("svg", class_="chart"))
    series = hovered(picture)
    both = series["mean of 2 seeds"]
    assert (np.array(both["low"]) <= both["y"]).all() and (np.array(both["y"]) <= both["high"]).all()
    at, mean = zip(*(facts.curve.training(20) for facts in runs[:2]), strict=True)
    slow = [np.interp(both["x"], place[:, 0], value) for place, value in zip(at, mean, strict=True)]
    assert both["y"] == pytest.approx(np.mean(slow, 0), rel=1e-3, abs=1e-3)
    assert both["high"] == pytest.approx(np.max(slow, 0), rel=1e-3, abs=1e-3)
    kinds = [one.attributes["class"] for one in picture.all("path")]
    assert kinds == ["band c0", "line c0", "thin c0", "thin c0", "line c1"]
    assert [entry.text.strip() for entry in page.all("li")] == [
        f"learning_rate={rate}" for rate in (load_preset("impala-atari").learner.learning_rate, 0.001)
    ]


def test_environments_have_pictures_of_their_own(runs: list[Facts], tmp_path: Path) -> None:
    other = read_facts(full_run(tmp_path / "other", episodes=20, options=(("env", "Breakout"),)))
    page = read_page(curves(columns([runs[0], other])))
    assert [head.text for head in page.all("h3")] == ["Pong", "Breakout"]


def test_runs_that_do_not_say_what_they_are_are_drawn_each_for_itself(tmp_path: Path) -> None:
    nameless = [full_run(tmp_path / name, episodes=20) for name in ("a", "b")]
    whole = [read_facts(run) for run in nameless]
    for run in nameless:
        (run / "config.toml").write_text("[agent")
    found = [read_facts(run) for run in nameless]
    assert [one.colour for one in columns(found)] == [0, 1] and [one.colour for one in columns(whole)] == [0, 0]
    page = read_page(curves(columns(found)))
    assert [head.text for head in page.all("h3")] == ["unknown"]
    assert [hovered(next(page.all("svg", class_="chart")))[name]["y"] for name in "ab"] == [
        hovered(next(read_page(curves(columns([facts]))).all("svg", class_="chart")))[name]["y"]
        for name, facts in zip("ab", whole, strict=True)
    ]
    assert read_page(glance(columns(found))).row("frames")[0].values == [80_000]


def test_every_evaluation_is_a_row(runs: list[Facts]) -> None:
    page = read_page(evaluations(columns(runs[:1])))
    scored, validated, final = page.all("details")
    rows = [row.values for row in scored.one("tbody").all("tr")]
    expected = [
        [one[name] for name in ("frames", "mean", "low", "high", "min", "max", "episodes", "time")]
        for one in records_of(runs[0].run)
    ]
    assert rows == expected and len(rows) == 5
    assert [row.values[1] for row in validated.one("tbody").all("tr")] == [-7.25, -9.5]
    assert final.row("seed=2")[0].values == [3.5] and final.row("seed=2")[3].values == [7]
    assert [one.one("summary").text for one in page.all("details")] == ["5 evaluations", "2 validations", "1 final set"]
    several = read_page(evaluations(columns(runs)))
    assert [one.text.strip() for one in several.all("summary")][3] == "seed1: 5 evaluations"
    assert not any("open" in one.attributes for one in several.all("details"))


def test_long_lists_show_the_newest(runs: list[Facts], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_parts, "MOST_ROWS", 2)
    scored = next(read_page(evaluations(columns(runs[:1]))).all("details"))
    newest = [one["frames"] for one in records_of(runs[0].run)[-2:]]
    assert [row.values[0] for row in scored.one("tbody").all("tr")] == newest and "The 3 before these" in scored.text


@pytest.mark.parametrize(("kind", "name", "source"), [("mp4", "video", "video/mp4"), ("gif", "img", "image/gif")])
def test_a_film_lies_in_the_page(tmp_path: Path, kind: str, name: str, source: str) -> None:
    run = full_run(tmp_path / "run", episodes=20, film=kind)
    page = read_page(films(columns([read_facts(run)]), run / "report" / "page.html"))
    data = page.one(name).attributes["src"] or ""
    assert data.startswith(f"data:{source};base64,")
    assert base64.b64decode(data.partition(",")[2]) == (run / "videos" / f"one.{kind}").read_bytes()
    assert page.one("a").attributes["href"] == f"../videos/one.{kind}" and "offbeat record" not in page.text


def test_a_large_film_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = full_run(tmp_path / "javascript:a ü&b", episodes=20, film="gif")
    size = (run / "videos" / "one.gif").stat().st_size
    monkeypatch.setattr(page_parts, "FILM_BYTES", size - 1)
    page = read_page(films(columns([read_facts(run)]), tmp_path / "page.html"))
    assert not list(page.all("img")) and "the link leads to it" in page.text
    assert page.one("a").attributes["href"] == "javascript%3Aa%20%C3%BC%26b/videos/one.gif"
    monkeypatch.setattr(page_parts, "FILM_BYTES", size)
    assert list(read_page(films(columns([read_facts(run)]), tmp_path / "page.html")).all("img"))
    monkeypatch.setattr(page_parts, "FILMS_BYTES", 2 * size - 1)
    facts = read_facts(run)
    assert not list(read_page(films([Column(facts, "a", 0), Column(facts, "b", 1)], tmp_path / "p")).all("img"))


def test_what_is_no_film_is_said(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", episodes=20)
    (run / "videos").mkdir()
    (run / "videos" / "x.mp4").write_text("<script>")
    page = read_page(films(columns([read_facts(run)]), tmp_path / "p.html"))
    assert not list(page.all("video")) and "This is no mp4 file, or a torn one." in page.text


def test_runs_without_a_film_name_the_command(tmp_path: Path) -> None:
    run = full_run(tmp_path / "a b", episodes=20)
    text = read_page(films(columns([read_facts(run)]), tmp_path / "p.html")).one("pre").text
    assert shlex.split(text) == ["offbeat", "record", os.fspath(run)]
