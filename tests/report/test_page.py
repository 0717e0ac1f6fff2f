"""The page as a whole: complete in itself, harmless whatever a run is called, whole at any moment while watched."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import offbeat
from offbeat.cli import main
from offbeat.errors import UserError
from offbeat.report.page import RENEWED_S, page, runs_to_show, watch_page, write_page
from offbeat.report.page_facts import read_facts
from tests.report.page_runs import full_run, read_page
from tests.report.test_plot import make_run

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&lt;b>"
MADE_HERE = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "p", "time", "nav", "a", "main", "section", "h2",
    "h3", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "data", "small", "b", "code", "wbr",
    "pre", "svg", "line", "path", "rect", "circle", "text", "figure", "figcaption", "details", "summary", "ul", "li",
    "progress", "img", "video", "footer", "script", "noscript",
}  # fmt: skip
"""Elements that a page may have."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds everything."""
    return full_run(tmp_path_factory.mktemp("runs") / "run", film="gif")


@contextmanager
def training(run: Path) -> Iterator[None]:
    """Hold the lock of a run as training does."""
    with open(run / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_the_page_is_complete_and_asks_nobody_for_anything(run: Path, tmp_path: Path) -> None:
    out = write_page([run], tmp_path / "new" / "page.html")
    text = out.read_text()
    made = read_page(text)
    assert text.startswith("<!doctype html>\n<html lang=") and {node.name for node in made.all()} <= MADE_HERE
    policy = made.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"] or ""
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(made.one(name).text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy
    assert "img-src data:; media-src data:; base-uri 'none'; form-action 'none'" in policy
    for node in made.all():
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            address = node.attributes.get(name)
            assert address is None or address.startswith(("data:image/gif;", "#", "../"))
        assert not [name for name in node.attributes if name.startswith("on") or name == "style"]
    code = made.one("style").text + made.one("script").text.replace("// ", "")
    assert not re.search(r"@import|url\(|//|fetch|XMLHttp|innerHTML", code)


def test_ids_are_unique_and_links_lead_to_them(run: Path) -> None:
    made = read_page(page([read_facts(run), read_facts(run)], run / "x.html"))
    ids = [node.attributes["id"] for node in made.all() if "id" in node.attributes]
    assert len(ids) == len(set(ids)) > 10
    links = [(node.attributes["href"] or "")[1:] for node in made.one("nav").all("a")]
    assert links == ["curves", "evaluations", "film", "options", "speed", "books", "machine"] and set(links) <= set(ids)


def test_nothing_that_a_run_says_becomes_markup(tmp_path: Path) -> None:
    run = make_run(tmp_path / HOSTILE.replace("/", "⁄"), episodes=40)
    quoted = json.dumps(HOSTILE)
    config = (run / "config.toml").read_text().replace('"Pong"', quoted).replace('"impala-atari"', quoted)
    (run / "config.toml").write_text(f"{config}\n[{quoted}]\n{quoted} = {quoted}\n")
    (run / "run.log").write_text(f"error {HOSTILE}\n\x1b[31m\0\n")
    same = {HOSTILE: HOSTILE}
    found = {HOSTILE: 1, "command": [HOSTILE], "machine": same, "versions": {HOSTILE: [HOSTILE]}, "python": same}
    (run / "environment.json").write_text(json.dumps(found))
    record = {"time": 1, "frames": 9, "agent_steps": 1, "role": HOSTILE, "mean": 1, "train_s": 2, "wait_s": 1}
    record |= {"policy": HOSTILE, "set": HOSTILE, HOSTILE: 3}
    with open(run / "metrics.jsonl", "a") as file:
        for kind in ("evaluation", "validation", "final", "restart", "ledger", "learner"):
            file.write(json.dumps(record | {"kind": kind}) + "\n")
    (run / "videos").mkdir()
    (run / "videos" / f"{HOSTILE.replace('/', '⁄')}.gif").write_bytes(b"GIF89a")
    for facts in ([read_facts(run)], [read_facts(run)] * 2):
        made = read_page(page(facts, tmp_path / "page.html"))
        assert {node.name for node in made.all()} <= MADE_HERE
        assert len(list(made.all("script"))) == 1 and len(list(made.all("img"))) == len(facts)
        assert not [name for node in made.all() for name in node.attributes if name.startswith("on")]
        assert made.text.count(HOSTILE) > 20


def test_what_is_missing_stands_at_the_top(run: Path, tmp_path: Path) -> None:
    begun = make_run(tmp_path / "begun", episodes=0)
    (begun / "metrics.jsonl").unlink()
    made = read_page(page([read_facts(begun)], tmp_path / "x.html"))
    assert "metrics.jsonl is not there" in made.one("section", id="missing").text
    assert [node.attributes["id"] for node in made.all("section")][:2] == ["glance", "missing"]
    assert 'id="missing"' not in page([read_facts(run)], tmp_path / "x.html")


def test_where_it_lies(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_page([run]) == run / "report" / "report.html" == offbeat.write_report(run)
    assert not [path for path in (run / "report").iterdir() if path.name[0] == "."]
    assert main(["report", str(run), "--out", str(tmp_path / "p.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'p.html'}\n" and (tmp_path / "p.html").is_file()
    with pytest.raises(UserError, match="there are no runs to show"):
        write_page([])
    with pytest.raises(UserError, match="cannot be written: it is a folder"):
        write_page([run], tmp_path)


def test_which_runs_are_shown(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    assert runs_to_show([run, run.parent, run / ".." / "run"], said.append) == [run] and not said
    torn = tmp_path / "runs" / "torn"
    torn.mkdir(parents=True)
    (torn / "config.toml").write_text("[agent")
    assert runs_to_show([torn], said.append) == [torn]
    assert (
        main(["report", str(torn)]) == 0
        and "The options are not known" in (torn / "report" / "report.html").read_text()
    )
    (torn / "config.toml").unlink()
    (torn / "run.log").touch()
    assert runs_to_show([torn], said.append) == [torn] and not said
    capsys.readouterr()
    for path, why in ((tmp_path / "none", "it does not exist"), (tmp_path, "it holds no config.toml")):
        assert main(["report", str(path)]) == 2 and why in capsys.readouterr().err


def test_a_page_loads_itself_anew_only_while_a_watched_run_goes_on(run: Path, tmp_path: Path) -> None:
    out, texts = tmp_path / "page.html", []
    held = training(run)
    held.__enter__()

    def sleep(seconds: float) -> None:
        assert seconds == RENEWED_S
        texts.append(out.read_text())
        if len(texts) == 2:
            held.__exit__(None, None, None)

    said: list[str] = []
    assert watch_page([run], out, say=said.append, sleep=sleep, clock=lambda: 0.0) == out
    assert len(texts) == 2 and said == [f"{out} is renewed while the run goes on"]
    for text in texts:
        made = read_page(text)
        assert made.one("noscript").one("meta").attributes == {"http-equiv": "refresh", "content": "10"}
        assert (
            made.one("html").attributes["data-renewed"] == "10"
            and "renewed about every 10 s" in made.one("header").text
        )
    for text in (out.read_text(), write_page([run], out).read_text()):
        assert 'http-equiv="refresh"' not in text and 'data-renewed="0"' in text


def test_a_running_run_that_is_not_watched_says_how(run: Path, tmp_path: Path) -> None:
    with training(run):
        text = write_page([run], tmp_path / "x.html").read_text()
    assert "with --watch this page is renewed" in text and 'http-equiv="refresh"' not in text


def test_slow_pages_are_renewed_more_seldom(run: Path, tmp_path: Path) -> None:
    pauses, now = [], iter([0.0, 7.0])
    with training(run), pytest.raises(StopIteration):
        watch_page([run], tmp_path / "x.html", say=print, sleep=pauses.append, clock=lambda: next(now))
    assert pauses == [70.0]


def test_watching_ends_with_a_page_that_stays(run: Path, tmp_path: Path) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with training(run), pytest.raises(KeyboardInterrupt):
        watch_page([run], tmp_path / "x.html", say=print, sleep=interrupt)
    assert 'data-renewed="0"' in (tmp_path / "x.html").read_text()


def test_watching_survives_a_disk_that_is_full_for_a_while(run: Path, tmp_path: Path) -> None:
    out, said, rounds = tmp_path / "x.html", [], [0]
    held = training(run)
    held.__enter__()

    def sleep(seconds: float) -> None:
        rounds[0] += 1
        if rounds[0] == 1:
            out.unlink()
            out.mkdir()
        if rounds[0] == 3:
            out.rmdir()
            held.__exit__(None, None, None)

    assert watch_page([run], out, say=said.append, sleep=sleep) == out and out.is_file()
    assert [text.split(": ")[0] for text in said] == [
        f"{out} is renewed while the run goes on",
        f"{out} cannot be written",
    ]
    out.unlink()
    out.mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        watch_page([run], out, say=said.append, sleep=sleep)


def test_the_command_watches(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--watch", "--out", str(tmp_path / "x.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'x.html'}\n"
