"""The page in a real browser: what is shown is what the metrics say, wide and narrow, light, dark and on paper.

``make test-browser`` installs one where it may; without one these tests are left out.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offbeat.report.curves import read_run, summarise
from offbeat.report.page import write_page
from offbeat.run.records import evaluations
from tests.report.browser import NAMES, PHONE, WIDE, Tab, browser, tab
from tests.report.page_runs import full_run

pytestmark = pytest.mark.skipif(browser() is None, reason=f"none of {', '.join(NAMES)} is installed: make test-browser")

NARROW = (360, 740)
HOSTILE = "<img src=http:⁄⁄localhost⁄x onerror=alert(1)>"


@pytest.fixture(scope="module")
def shown() -> Iterator[Tab]:
    """A browser."""
    with tab() as made:
        yield made


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs, one of them with a film and a name that would like to be markup."""
    folder = tmp_path_factory.mktemp("runs")
    film = "mp4" if importlib.util.find_spec("imageio_ffmpeg") else "gif"
    made = [full_run(folder / HOSTILE, 0, film=film), full_run(folder / "seed1", 1)]
    return [*made, full_run(folder / "fast", 2, options=(("learner.learning_rate", "0.001"),))]


@pytest.fixture(autouse=True)
def silence(shown: Tab) -> Iterator[None]:
    """No test leaves an error or a warning on the console, or has asked for anything outside of the page."""
    shown.said.clear()
    shown.asked.clear()
    yield
    assert shown.said == []
    assert [address for address in shown.asked if not address.startswith(("file://", "data:"))] == []


def cells(shown: Tab, card: str, label: str) -> list[str]:
    """What stands in a row of a card, as it is shown."""
    script = (
        f"[...[...document.querySelectorAll('#{card} tr')].find((row) => "
        f"row.cells[0].innerText.trim() === {json.dumps(label)})"
        ".cells].slice(1).map((cell) => cell.innerText.trim())"
    )
    found = shown.evaluate(script)
    assert isinstance(found, list)
    return found


def number(text: str) -> float:
    """The first number of a cell."""
    return float(text.split()[0].replace(",", "").replace("−", "-"))


@pytest.mark.parametrize("size", [WIDE, PHONE, NARROW])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_shown_is_what_the_metrics_say(
    shown: Tab, runs: list[Path], tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    shown.show(size, scheme)
    shown.open(write_page(runs, tmp_path / "page.html"))
    known = [summarise(read_run(run)) for run in runs]
    for label, name in (("frames", "frames"), ("training return", "training"), ("last evaluation", "final")):
        assert [number(cell) for cell in cells(shown, "glance", label)] == pytest.approx(
            [one[name] for one in known], rel=1e-3
        )
    rows = "[...one.querySelectorAll('tbody tr')].map((row) => row.innerText.split('\\t'))"
    opened = f"(one) => {{ one.open = true; return {rows} }}"
    lists = shown.evaluate(f"[...document.querySelectorAll('#evaluations details')].map({opened})")
    scored = evaluations(runs[0])
    assert [number(row[1]) for row in lists[0]] == pytest.approx([one["mean"] for one in scored], rel=1e-3)
    assert [number(row[0]) for row in lists[0]] == [one["frames"] for one in scored]
    # Nothing is wider than the window, but for tables that scroll in their own box.
    assert shown.evaluate("document.documentElement.scrollWidth") <= size[0]
    too_wide = (
        "[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll') && !one.closest('svg') && "
    )
    assert (
        shown.evaluate(f"{too_wide}one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)")
        == []
    )
    assert HOSTILE in shown.evaluate("document.querySelector('thead').innerText")


def test_dark_is_dark_and_text_can_be_read(shown: Tab, runs: list[Path], tmp_path: Path) -> None:
    out = write_page(runs, tmp_path / "page.html")
    brightness = {}
    for scheme in ("light", "dark"):
        shown.show(PHONE, scheme)
        shown.open(out)
        colours = "((one) => [getComputedStyle(one).backgroundColor, getComputedStyle(one.querySelector(%s)).color])"
        for part in ("h2", "tbody th", "td", "summary", ".note"):
            found = shown.evaluate(f"{colours % json.dumps(part)}(document.querySelector('.card:has({part})'))")
            ground, text = (luminance(colour) for colour in found)
            high, low = max(ground, text), min(ground, text)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, part, found)  # WCAG 2.1, 1.4.3
            brightness[scheme] = ground
    assert brightness["light"] > 0.9 and brightness["dark"] < 0.1


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``. Source: WCAG 2.1."""
    rgb = np.array([float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_pointer_finds_values(shown: Tab, runs: list[Path], tmp_path: Path) -> None:
    shown.show(WIDE)
    shown.open(write_page(runs[2:], tmp_path / "page.html"))
    box = shown.evaluate(
        "(({left, top, width}) => [left, top, width])(document.querySelector('.chart').getBoundingClientRect())"
    )
    curve = read_run(runs[2])
    at, mean = curve.training(20)
    right = max(at[-1, 0], curve.eval_at[-1, 0])
    shown.call(
        "Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] * curve.eval_at[2, 0] / right, y=box[1] + 50
    )
    told = shown.evaluate("document.querySelector('.readout').innerText")
    where, _, values = told.partition(": ")
    assert number(where) == pytest.approx(curve.eval_at[2, 0], rel=0.01) and "environment frames" in where
    line, dot = values.split(" · ")
    nearest = int(np.argmin(np.abs(at[:, 0] - curve.eval_at[2, 0])))
    assert number(line.removeprefix("fast ")) == pytest.approx(mean[nearest], rel=0.02)
    assert number(dot.removeprefix("fast, evaluation ")) == pytest.approx(curve.eval_mean[2], rel=1e-3)
    assert shown.evaluate("document.querySelector('.cursor').getAttribute('visibility')") == "visible"


def test_the_film_plays(shown: Tab, runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    shown.show(WIDE)
    shown.open(write_page(runs[:1], tmp_path / "page.html"))
    script = (
        "new Promise((done, fail) => { const film = document.querySelector('video'); "
        "film.onerror = () => fail(film.error.message);"
        "film.ontimeupdate = () => film.currentTime > 0.2 && done([film.videoWidth, film.videoHeight, film.duration]);"
        "film.play().catch(fail); })"
    )
    assert shown.evaluate(script) == [64, 48, pytest.approx(2.5, abs=0.2)]


def test_a_watched_page_loads_itself_anew(shown: Tab, runs: list[Path], tmp_path: Path) -> None:
    shown.show(WIDE)
    out = write_page(runs[1:2], tmp_path / "page.html", renewed_s=1)
    shown.open(out)
    shown.evaluate("document.querySelector('#log-0').open = true; document.title = 'before'")
    write_page(runs[1:2], out)
    shown.wait("Page.loadEventFired")
    assert shown.evaluate("document.title") == "seed1 · offbeat"
    assert shown.evaluate("document.documentElement.dataset.renewed") == "0"


def test_what_was_unfolded_stays_so(shown: Tab, runs: list[Path], tmp_path: Path) -> None:
    shown.show(WIDE)
    shown.open(write_page(runs[1:2], tmp_path / "page.html", renewed_s=1))
    shown.evaluate("document.querySelector('#log-0').open = true; document.querySelector('#trouble-0').open = false")
    shown.wait("Page.loadEventFired")
    assert shown.evaluate("['log-0', 'trouble-0'].map((id) => document.getElementById(id).open)") == [True, False]


def test_it_can_be_printed(shown: Tab, runs: list[Path], tmp_path: Path) -> None:
    shown.show(WIDE, "dark", "print")
    shown.open(write_page(runs, tmp_path / "page.html"))
    assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    ground = shown.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    assert luminance(ground) > 0.99
    paper = base64.b64decode(shown.call("Page.printToPDF", printBackground=False)["data"])
    assert paper.startswith(b"%PDF") and paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") >= 2


def test_pictures_can_be_taken(shown: Tab, runs: list[Path], tmp_path: Path) -> None:
    shown.show(PHONE, "light")
    shown.open(write_page(runs, tmp_path / "page.html"))
    shown.picture(tmp_path / "page.png", 600)
    picture = Image.open(io.BytesIO((tmp_path / "page.png").read_bytes()))
    assert picture.size == (PHONE[0], 600)
    seen = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0, 114, 178), (255, 255, 255)} <= seen  # the first colour of curves, and cards


def test_errors_on_the_console_are_noticed(shown: Tab, tmp_path: Path) -> None:
    """Else the others would pass whatever the page does."""
    (tmp_path / "page.html").write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; script-src 'unsafe-inline'\">"
        "<script>console.error('a')</script><script>nothing.there</script><img src='http://localhost/x.png'>"
    )
    shown.open(tmp_path / "page.html")
    shown.evaluate("new Promise((done) => setTimeout(done, 200))")
    assert len(shown.said) == 3 and "Content Security Policy" in " ".join(shown.said)
    shown.said.clear()
    shown.asked.clear()
