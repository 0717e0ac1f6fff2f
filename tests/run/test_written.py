"""What commands write is there whole or not at all; a run folder that cannot be written to is read all the same."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from offbeat.cli import main
from offbeat.errors import UserError
from offbeat.report.plot import plot_runs
from offbeat.report.trace import trace_run
from offbeat.run.written import draft_of, written
from tests.scoring.test_evaluate import make_run


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with written(path) as draft:
        draft.write_text("all of it")
        assert draft.suffix == ".txt" and not path.exists()
    assert path.read_text() == "all of it" and list(path.parent.iterdir()) == [path]

    def stop_half_way() -> None:
        with written(path) as draft:
            draft.write_text("half")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        stop_half_way()
    assert path.read_text() == "all of it" and list(path.parent.iterdir()) == [path]


def test_what_is_no_file_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    said = {"folder": "it is a folder", "pipe": "it is no file", "file/a.png": "it would lie in a file"}
    for name, why in said.items():
        with pytest.raises(UserError, match=f"{name} cannot be written: {why}; name another file with --out FILE"):
            draft_of(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "pipe"]


def test_endings_that_say_no_kind_of_picture_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "impala-catch")
    with pytest.raises(UserError, match="unknown kind of picture 'txt'; known: png, pdf, svg, jpg"):
        plot_runs([run], tmp_path / "a.txt")
    with pytest.raises(UserError, match="has no recorded time line"):
        trace_run(run, tmp_path / "a.png")


ELSEWHERE = """
import sys
import offbeat
from offbeat.cli import main

run = sys.argv[1]
for name, *options in [
    ("eval", "--episodes", "4", "--out", "score.json"), ("compare",), ("plot", "--out", "a.png"),
    ("record", "--out", "a.gif"), ("export", "--out", "a.pt2"),
]:
    assert main([name, run, *options]) == 0, name
for name in ("plot", "record", "export", "resume"):
    assert main([name, run]) == 2, name
assert main(["train", "debug", "--total-frames", "100", "--out", "mine", "--from", run]) == 0
offbeat.load(run)
"""


def no_superuser() -> None:
    """Take from what is started next the rights of a superuser over files."""
    if os.geteuid() == 0:
        for right in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
            if ctypes.CDLL(None).prctl(24, right, 0, 0, 0):  # PR_CAPBSET_DROP
                os._exit(77)


@pytest.mark.skipif(sys.platform != "linux", reason="the superuser's rights are dropped as Linux has it")
def test_a_run_folder_that_cannot_be_written_to_is_used_and_left_as_it_is(tmp_path: Path) -> None:
    run, here = make_run(tmp_path / "shared" / "her run ü", "debug"), tmp_path / "here"
    (run / "metrics.jsonl").write_text("")
    here.mkdir()

    def seen() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in [run, *run.rglob("*")])

    folders = [run.parent, run, *(path for path in run.rglob("*") if path.is_dir())]
    before = seen()
    for folder in folders:
        folder.chmod(0o555)
    asked = [sys.executable, "-c", ELSEWHERE, str(run)]
    try:
        done = subprocess.run(
            asked, cwd=here, capture_output=True, text=True, preexec_fn=no_superuser, timeout=120,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    finally:
        for folder in folders:
            folder.chmod(0o755)
    if done.returncode == 77:
        pytest.skip("the superuser keeps its rights here")
    assert done.returncode == 0, done.stderr
    assert seen() == before
    assert {path.name for path in here.iterdir()} == {"score.json", "a.png", "a.gif", "a.pt2", "mine"}
    refusals = [line for line in done.stderr.splitlines() if line.startswith("offbeat: error:")]
    assert [line.count("name another file with --out FILE") for line in refusals] == [1, 1, 1, 0]
    assert f"offbeat train PRESET --from '{run}'" in refusals[3]
    assert "Traceback" not in done.stderr


def test_nothing_is_played_for_a_file_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", "debug")
    for name in ("eval", "record", "export"):
        assert main([name, str(run), "--out", str(run / "config.toml" / "a.gif")]) == 2
        assert "cannot be written: it would lie in a file; name another file" in capsys.readouterr().err
