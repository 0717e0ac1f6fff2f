"""One HTML file that shows runs: everything lies in it, and nothing in it asks the network for anything."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from offbeat.errors import UserError
from offbeat.report.page_facts import FILES, Facts, read_facts
from offbeat.report.page_html import Html, card, joined, tag
from offbeat.report.page_parts import Column, columns, curves, evaluations, films, glance
from offbeat.report.page_run import books, machine, options, realtime, speed
from offbeat.run.folders import CONFIG, list_runs, runs_among
from offbeat.run.written import written

RENEWED_S = 10.0
"""A watched page is renewed so often, more seldom where writing it takes more than a tenth of that. Unit: seconds."""


def runs_to_show(paths: Sequence[str | Path], say: Callable[[str], object]) -> list[Path]:
    """The runs at ``paths``, each once, as of ``runs_among``; a folder with any file of a run is one, however torn.

    Raises ``UserError`` where there is none.
    """
    found: dict[Path, Path] = {}
    for path in (Path(given).expanduser() for given in paths):
        torn = not (path / CONFIG).is_file() and not list_runs(path) and any((path / name).exists() for name in FILES)
        runs = [path] if torn or (path / CONFIG).is_file() else runs_among([path], newest=True, say=say)
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def write_page(runs: Sequence[str | Path], out: Path | None = None, renewed_s: float = 0.0) -> Path:
    """Write the page of ``runs``.

    Args:
        runs: run folders; what is torn or missing in them is named on the page.
        out: file; default: ``report/report.html`` in the first run.
        renewed_s: the page loads itself anew so often while a run goes on; 0: never.

    Returns:
        The file. UserError where a folder holds nothing of a run, or the file cannot be written.
    """
    return _write([read_facts(Path(run)) for run in runs], _place(runs, out), renewed_s)


def watch_page(
    runs: Sequence[str | Path],
    out: Path | None = None,
    *,
    every_s: float = RENEWED_S,
    say: Callable[[str], object] = print,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Write the page again and again until none of ``runs`` goes on; the last one no longer loads itself anew.

    Args:
        every_s: seconds between two pages.
        say: hears where the page lies, and what goes wrong with a later one; that is tried again.
        sleep, clock: of the machine.
        others: as of ``write_page``.

    Returns:
        The file. Interrupted, it leaves a page that does not load itself anew, and raises KeyboardInterrupt.
    """
    place, told = _place(runs, out), ""
    try:
        while True:
            began = clock()
            facts = [read_facts(Path(run)) for run in runs]
            going_on = any(one.state == "running" for one in facts)
            pause = max(every_s, 10 * (clock() - began))
            try:
                _write(facts, place, pause if going_on else 0.0)
            except UserError as error:
                if not told or not going_on:  # never written, or for the last time
                    raise
                told = _say_once(str(error), told, say)
            else:
                told = _say_once(f"{place} is renewed while the run goes on", told, say) if going_on else told
            if not going_on:
                return place
            sleep(pause)
    except KeyboardInterrupt:
        if told:
            _write([read_facts(Path(run)) for run in runs], place, 0.0)
        raise


def page(runs: Sequence[Facts], out: Path, renewed_s: float = 0.0) -> Html:
    """The document. ``out``: where it will lie; ``renewed_s``: as of ``write_page``."""
    several = columns(runs)
    style, script = (Html(files("offbeat.report").joinpath(name).read_text()) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    title = several[0].name if len(several) == 1 else f"{len(several)} runs"
    again = tag("noscript", tag("meta", http_equiv="refresh", content=f"{renewed_s:.0f}")) if renewed_s else None
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        again,
        tag("title", f"{title} · offbeat"),
        tag("style", style),
    )
    parts = [part for part in _parts(several, out) if part is not None]
    body = tag("body", _header(title, several, parts, renewed_s), tag("main", *parts), _footer(), tag("script", script))
    return Html(f"<!doctype html>\n{tag('html', head, body, lang='en', data_renewed=f'{renewed_s:.0f}')}\n")


def _parts(several: list[Column], out: Path) -> list[Html | None]:
    made = [glance(several), _missing(several), curves(several), evaluations(several), films(several, out)]
    return [*made, options(several), speed(several), realtime(several), books(several), machine(several)]


def _missing(several: list[Column]) -> Html | None:
    """What the folders do not hold."""
    lines = [(one, line) for one in several for line in one.facts.missing]
    if not lines:
        return None
    items = [tag("li", *([one.name, ": "] if len(several) > 1 else []), line) for one, line in lines]
    return card("What is missing", tag("ul", *items), id="missing")


def _header(title: str, several: list[Column], parts: Sequence[Html], renewed_s: float) -> Html:
    words = ["As of ", tag("time", time.strftime("%Y-%m-%d %H:%M:%S")), "."]
    going_on = [one for one in several if one.facts.state == "running"]
    if renewed_s:
        words.append(f" The run goes on; this page is renewed about every {renewed_s:.0f} s.")
    elif going_on:
        words.append(" The run goes on; with --watch this page is renewed meanwhile.")
    where = tag("p", str(several[0].facts.run.absolute())) if len(several) == 1 else None
    named = {part.partition('id="')[2].partition('"')[0] for part in parts}
    links = [tag("a", text, href=f"#{name}") for name, text in LINKS.items() if name in named]
    return tag("header", tag("h1", title), where, tag("p", *words), tag("nav", *joined_links(links)))


LINKS = {
    "missing": "Missing", "curves": "Curves", "evaluations": "Evaluations", "film": "Film", "options": "Options",
    "speed": "Speed", "realtime": "Realtime", "books": "Faults", "machine": "Machine",
}  # fmt: skip
"""Cards that the top of the page leads to."""


def joined_links(links: Sequence[Html]) -> list[Html]:
    """Links with a space between them, for readers without the style sheet."""
    return [joined([link, " "]) for link in links]


def _footer() -> Html:
    try:
        made_by = f"offbeat {version('offbeat')}"
    except PackageNotFoundError:  # from a checkout
        made_by = "offbeat"
    return tag("footer", tag("p", f"Made by {made_by} report. This file is complete and asks the network for nothing."))


def _hash(text: str) -> str:
    """A script or style as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _place(runs: Sequence[str | Path], out: Path | None) -> Path:
    if not runs:
        raise UserError("there are no runs to show; name at least one run folder")
    return Path(out) if out is not None else Path(runs[0]) / "report" / "report.html"


def _write(facts: Sequence[Facts], place: Path, renewed_s: float) -> Path:
    text = page(facts, place, renewed_s)
    with written(place) as draft:
        draft.write_text(text, encoding="utf-8")
    return place


def _say_once(text: str, before: str, say: Callable[[str], object]) -> str:
    if text != before:
        say(text)
    return text
