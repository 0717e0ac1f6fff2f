"""What the page knows of a run folder: everything that is whole, and what is missing by name; nothing raises."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.errors import UserError
from offbeat.report.curves import read_run
from offbeat.report.page import page
from offbeat.report.page_facts import FILES, Facts, read_facts, running
from tests.report.page_runs import LEDGER, full_run
from tests.report.recordings import recording_of, write_files


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds everything."""
    return full_run(tmp_path_factory.mktemp("runs") / "run", film="gif")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def shown(facts: Facts) -> str:
    """The page of one run; that it can be made at all is half of each test."""
    return page([facts], facts.run / "page.html")


def test_everything_is_read(run: Path) -> None:
    facts, curve = read_facts(run), read_run(run)
    assert not facts.missing
    assert np.array_equal(facts.curve.episode_return, curve.episode_return) and facts.frames == 400_000
    assert np.array_equal(facts.curve.eval_interval, curve.eval_interval) and facts.seconds == 100
    assert {kind: len(found) for kind, found in facts.records.items()} == {
        "evaluation": 5, "validation": 2, "final": 1, "final_summary": 1, "restart": 1, "ledger": 1,
    }  # fmt: skip
    assert facts.records["ledger"][0].items() >= LEDGER.items()
    assert facts.spent["actor-0"] == {"forward_s": 2, "env_s": 5, "wait_s": 1}
    assert facts.spent["learner"] == {"train_s": 6, "wait_s": 2} and facts.newest["learner"]["skipped"] == 3
    assert facts.progress["frames"].tolist() == [float(4000 * n) for n in range(5, 101, 5)]
    assert facts.film == run / "videos" / "one.gif" and facts.environment["python"]
    assert facts.trouble == ["2026-01-01 main actor-1 died; replaced (1 of at most 5 times)"]
    assert facts.state == "stopped" and facts.total_frames > facts.frames


def test_times_of_a_role_add_up(run: Path) -> None:
    line = {"time": 1, "frames": 1, "agent_steps": 1, "role": "actor-0", "kind": "actor", "env_s": 7.0, "wait_s": None}
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    assert read_facts(run).spent["actor-0"] == {"forward_s": 2, "env_s": 12, "wait_s": 1}


@pytest.mark.parametrize("name", [*FILES, "environment.json", "videos"])
@pytest.mark.parametrize("how", ["removed", "empty", "folder", "pipe"])
def test_whatever_is_missing_is_named(run: Path, name: str, how: str) -> None:
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if how == "empty":
        path.touch()
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    facts = read_facts(run)
    quiet = name == "videos" or (name == "run.log" and how == "empty")
    assert (name in " ".join(facts.missing)) is not quiet, facts.missing
    assert shown(facts)


def test_files_that_a_power_cut_tore_give_what_is_whole(run: Path) -> None:
    rng = random.Random(0)
    for name in (*FILES, "environment.json", "videos/one.gif"):
        text = (run / name).read_bytes()
        for cut in (1, len(text) - 1, *rng.sample(range(2, len(text) - 1), 4)):
            (run / name).write_bytes(text[:cut] + b"\0" * rng.choice((0, 100)))
            assert shown(read_facts(run))
        (run / name).write_bytes(text)
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'\xff\n{"time": 31.0, "role": "actor-0", "ki')
    assert not read_facts(run).missing


def test_a_run_that_is_just_beginning(run: Path) -> None:
    for name in ("metrics.jsonl", "progress.csv", "run.log"):
        (run / name).unlink()
    shutil.rmtree(run / "videos")
    facts = read_facts(run)
    assert facts.state == "begun" and facts.frames == 0 and facts.seconds == 0 and facts.film is None
    assert [line.split()[0] for line in facts.missing] == ["metrics.jsonl", "progress.csv", "run.log"]
    assert "Nothing to draw yet." in shown(facts)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run folder: it holds none of config.toml, metrics.jsonl"):
        read_facts(tmp_path)


def test_a_run_is_running_while_its_lock_is_held(run: Path) -> None:
    assert not running(run)
    with open(run / ".lock", "w") as file:
        assert not running(run)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert running(run) and read_facts(run).state == "running"
    assert not running(run)


def test_a_run_with_all_its_frames_is_finished(run: Path) -> None:
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(
        config.replace(f"total_frames = {read_facts(run).total_frames}", "total_frames = 400000")
    )
    assert read_facts(run).state == "finished"


NONSENSE: tuple[Any, ...] = (
    None, True, -1, 1e308, -1e308, 10**400, "", "<script>", "nan", [], [1], [[]], {}, {"a": "<b>"}, float("nan"),
)  # fmt: skip


def nonsense(value: Any, rng: random.Random) -> Any:
    """``value`` with some of what is in it replaced."""
    if rng.random() < 0.1:
        return rng.choice(NONSENSE)
    if isinstance(value, dict):
        return {name: nonsense(item, rng) for name, item in value.items()}
    return [nonsense(item, rng) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(3))
def test_records_of_nonsense_raise_nothing(run: Path, seed: int) -> None:
    rng = random.Random(seed)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    environment = json.loads((run / "environment.json").read_text())
    for _ in range(5):
        text = "".join(json.dumps(nonsense(line, rng)) + "\n" for line in lines)
        (run / "metrics.jsonl").write_text(text)
        (run / "environment.json").write_text(json.dumps(nonsense(environment, rng)))
        assert "<script>alert" not in shown(read_facts(run))


@pytest.mark.parametrize(
    "text",
    [
        "env = 1\nagent = 2\nseed = 3",
        "[env]\nid = []\n[agent]\nname = {}",
        "[env]\nid = 1979-05-27\n[agent]\nname = 1",
        'preset = ["a"]\ntotal_frames = "x"\nseed = {}\n[env]\nid = "a"\n[agent]\nname = "dqn"\n[realtime]\nfps = "x"',
        'preset = "/etc/passwd.toml"\nreplay = 1\neval_env = "x"\n[env]\nid = "a"\n[agent]\nname = "no such agent"',
        'total_frames = 9999999999999999999999\n[[env]]\nid = "a"',
        '[env]\nid = "a"\nid = "b"', "\0", "=", "a." * 2000 + "b=1",
    ],
)  # fmt: skip
def test_options_of_nonsense_raise_nothing(run: Path, text: str) -> None:
    (run / "config.toml").write_text(text)
    assert shown(read_facts(run))


def test_links_to_films_elsewhere_are_not_followed(run: Path, tmp_path: Path) -> None:
    (run / "videos" / "one.gif").rename(tmp_path / "elsewhere.gif")
    (run / "videos" / "one.gif").symlink_to(tmp_path / "elsewhere.gif")
    (run / "videos" / ".two.mp4.partial.mp4").touch()
    assert read_facts(run).film is None


def test_the_newest_film_is_taken(run: Path) -> None:
    for name, time in (("a.mp4", 100), ("b.gif", 300), ("c.mp4", 200), ("d.txt", 400)):
        (run / "videos" / name).touch()
        os.utime(run / "videos" / name, (time, time))
    os.utime(run / "videos" / "one.gif", (50, 50))
    assert read_facts(run).film == run / "videos" / "b.gif"


def test_a_torn_time_line_is_named(run: Path) -> None:
    (run / "trace").mkdir()
    (run / "trace" / "learner.main.npy").write_bytes(b"\x93NUMPY")
    (run / "trace" / "learner.main.json").write_text("{}")
    facts = read_facts(run)
    assert facts.lanes == [] and "time line cannot be read" in " ".join(facts.missing) and shown(facts)


def test_a_realtime_run_is_counted_or_said_to_be_uncounted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_files(recording_of([(0, 2, 0, 0), (1, 3, 0, 1)]), run)
    text = (run / "config.toml").read_text() + '[env]\nid = "toy/catch"\n'
    (run / "config.toml").write_text(text)
    facts = read_facts(run)
    assert (
        facts.realtime["decisions"] == 2
        and facts.realtime["staleness"]["mean"] == 2
        and 'id="realtime"' in shown(facts)
    )
    (run / "realtime" / "totals.json").unlink()
    facts = read_facts(run)
    assert not facts.realtime and "realtime environment counted is not known" in " ".join(facts.missing)
    assert 'id="realtime"' not in shown(facts)
