"""The command line: what each command prints, and one line with exit code 2 for everything that the user can mend."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium
import pytest

import offbeat
from offbeat.bench import streams
from offbeat.cli import COMMANDS, main
from offbeat.commands import doctor
from offbeat.commands.arguments import scan
from offbeat.config import validation
from offbeat.envs import atari_games
from offbeat.envs.minatar import _game_module
from offbeat.errors import UserError

TINY = ["--total-frames", "400", "--evaluation.every-frames=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few seconds."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "debug", "--out", str(folder), *TINY]) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line on stderr of a command that ends with exit code 2 and prints nothing else."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("offbeat: error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "did you mean 'train'?"]),
        (["train"], ["takes one preset, got none"]),
        (["train", "a", "b"], ["takes one preset, got 2: a b"]),
        (["train", "impala-ctach"], ["unknown preset 'impala-ctach'", "did you mean 'impala-catch'?"]),
        (["train", "debug", "--env", "Pnog"], ["'Pnog'", "did you mean"]),
        (
            ["train", "debug", "--learner.batchsize", "8"],
            ["'--learner.batchsize'", "did you mean 'learner.batch_size'?"],
        ),
        (["train", "debug", "--batch-size", "8"], ["'--batch_size'", "did you mean 'learner.batch_size'?"]),
        (["train", "debug", "--seed"], ["option --seed needs a value"]),
        (["train", "debug", "-s", "1"], ["unknown option '-s'"]),
        (["train", "debug", "--learner.batch_size", "-4"], ["learner.batch_size=-4 is out of range", "at least 1"]),
        (["train", "debug", "--env.sticky=1.5"], ["env.sticky=1.5 is out of range", "[0, 1]"]),
        (["train", "debug", "--device", "cuda:77"], ["device='cuda:77', but"]),
        (["train", "debug", "--from", "nowhere"], ["'nowhere' is no run folder: it does not exist"]),
        (["train", "debug", "--agent.entropy-kost=1"], ["agent.entropy_kost", "'agent.entropy_cost'"]),
        (["resume", "nowhere"], ["'nowhere' is no run folder: it does not exist"]),
        (["resume"], ["required: run", "offbeat resume --help"]),
        (["eval", "x", "--polcy", "greedy"], ["unknown option '--polcy'", "did you mean '--policy'?"]),
        (["eval", "x", "--policy", "best"], ["invalid choice: 'best'", "greedy"]),
        (["bench", "speed"], ["needs one of: throughput, actor, streams", "'speed'"]),
        (["verify", "resume", "debug", "--kills", "no"], ["--kills='no'"]),
    ],
)
def test_user_errors(capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]) -> None:
    line = refused(capsys, *arguments)
    for part in parts:
        assert part in line


def test_a_batch_that_cannot_be_split(capsys: pytest.CaptureFixture[str]) -> None:
    shares = '[{kind = "fifo", share = 0.25}, {kind = "uniform", share = 0.75}]'
    line = refused(
        capsys, "train", "debug", "--replay.samplers", shares, "--replay.capacity=1000", "--learner.batch-size=10"
    )
    assert "batch_size=10 cannot be split 0.25/0.75 between samplers; use a multiple of 4" in line


def test_a_missing_extra_names_its_install_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "minatar", None)  # import raises ModuleNotFoundError
    _game_module.cache_clear()  # an earlier test may have loaded the game
    line = refused(capsys, "train", "impala-minatar")
    assert "pip install" in line
    assert "offbeat[minatar]" in line


def test_a_run_folder_in_use(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    capsys.readouterr()
    before = sorted(run.rglob("*"))
    assert f"run folder '{run}' is already in use" in refused(capsys, "train", "debug", "--out", str(run))
    assert sorted(run.rglob("*")) == before


def test_not_enough_memory_or_disk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(validation, "available_memory", lambda: 1000)
    out = tmp_path / "run"
    assert "GiB of memory" in refused(capsys, "train", "debug", "--out", str(out))
    monkeypatch.undo()
    monkeypatch.setattr(validation, "free_disk", lambda path: 1000)
    assert "GiB of disk" in refused(capsys, "train", "debug", "--out", str(out))
    assert not out.exists()


def test_what_is_no_run_cannot_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in ("resume", "eval", "play", "record", "plot", "compare", "export"):
        assert f"'{tmp_path}' is no run folder: it holds no config.toml" in refused(capsys, command, str(tmp_path))
    (tmp_path / "config.toml").write_text('preset = "debug"\n')
    assert "no complete checkpoint" in refused(capsys, "resume", str(tmp_path))


def test_rendering_without_a_display_offers_a_video(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    capsys.readouterr()
    for command in (["eval", str(run), "--render"], ["play", str(run)]):
        assert f"offbeat record {run}" in refused(capsys, *command)


def test_errors_that_are_not_the_users_are_tracebacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "report", lambda: 1 / 0)
    assert main(["doctor"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("error", [BrokenPipeError, EOFError, SystemExit, GeneratorExit])
@pytest.mark.parametrize("command", [["doctor"], ["resume", "x"]])
def test_what_environments_raise_is_never_taken_for_a_reader_that_has_gone(
    command: list[str],
    error: type[BaseException],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise error("of an emulator")

    monkeypatch.setattr(doctor, "report", fails)
    monkeypatch.setattr("offbeat.commands.training.find_run", fails)
    assert main(command) == 1
    assert f"{error.__name__}: of an emulator" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ('("$@"; echo "code $?" >&2) | true', 0, ""),
        ('("$@"; echo "code $?" >&2) | head -n 1', 0, ""),
        ('"$@" >/dev/full; echo "code $?" >&2', 2, "standard output cannot be written: No space left on device"),
        ('"$@" >&-; echo "code $?" >&2', 0, ""),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lists_on_an_output_that_takes_nothing(shell: str, code: int, said: str, unbuffered: str) -> None:
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "offbeat", "presets"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    err = subprocess.run(command, capture_output=True, text=True, env=environment).stderr
    assert err.splitlines() == [*([f"offbeat: error: {said}"] if said else []), f"code {code}"]


def test_help_whose_reader_left() -> None:
    command = ["sh", "-c", '("$@"; echo "code $?" >&2) | true', "sh", sys.executable, "-m", "offbeat", "eval", "--help"]
    assert subprocess.run(command, capture_output=True, text=True).stderr == "code 0\n"


def test_a_misspelt_option_ends_a_process_with_code_2_before_torch_is_imported() -> None:
    code = (
        "import sys; from offbeat.cli import main; rc = main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(rc)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "debug", "--lerner.batch_size", "8"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr == "offbeat: error: unknown option '--lerner.batch_size'; did you mean 'learner.batch_size'?\n"


def test_python_m_offbeat_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "offbeat", "train", "nonsense"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("offbeat: error: unknown preset 'nonsense'")
    assert done.stderr.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for part in (
        "--from RUN",
        "--learner.batch_size\n",
        "default 32",
        "source Espeholt",
        "agent impala:",
        "unit frames",
    ):
        assert part in text
    for name in ("graph", "bench", "verify", "resume", "eval", "export", "doctor"):
        assert main([name, "--help"]) == 0


def test_lists(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atari_games, "game_names", lambda: {"Pong": "pong"})  # reading all of them takes seconds
    assert main(["presets"]) == 0
    assert "impala-catch" in capsys.readouterr().out
    assert main(["envs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [["environment", "actions", "kind"], ["Pong", "6", "atari"]]
    assert main(["envs", "catch"]) == 0
    assert "toy/catch" in capsys.readouterr().out
    assert "did you mean 'toy/catch'" in refused(capsys, "envs", "toy/ctch")
    assert main(["graph", "debug"]) == 0
    assert "learner" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "cores" in text
    assert all(extra in text for extra in doctor.EXTRAS)


def test_bench_streams_prints_rates_beside_memcpy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "bench_streams", functools.partial(streams.bench_streams, 0.05))
    assert main(["bench", "streams"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "memcpy GB/s" in head
    assert [row.split()[0] for row in rows] == ["append", "assemble"]


def test_doctor_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"atari": ("no_such_module",), "base": ("sys",)})
    assert doctor.extras() == {
        "atari": "missing no_such_module: pip install 'offbeat[atari]'",
        "base": "installed",
    }


def test_train_writes_the_resolved_configuration(run: Path) -> None:
    data = tomllib.loads((run / "config.toml").read_text())
    assert (data["preset"], data["total_frames"], data["evaluation"]["every_frames"]) == ("debug", 400, 0)


def test_runs_are_scored_compared_and_exported(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    capsys.readouterr()
    assert main(["eval", str(run.parent), "--episodes", "4", "--policy", "greedy"]) == 0
    assert "4 episodes (greedy)" in capsys.readouterr().out
    assert main(["compare", str(run.parent)]) == 0
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["run", "agent", "environment"]
    assert row.split()[:4] == ["first", "impala", "toy/catch", "0"]
    assert main(["export", str(run)]) == 0
    assert Path(capsys.readouterr().out.strip()) == run / "policy.pt2"


def test_from_starts_a_new_run(run: Path, tmp_path: Path) -> None:
    assert main(["train", "debug", "--from", str(run), "--out", str(tmp_path / "second"), *TINY]) == 0
    assert (tmp_path / "second" / "checkpoints").is_dir()


def test_resume_extends_a_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", "debug", "--out", str(out), *TINY]) == 0
    assert main(["resume", str(out), "--total_frames=600"]) == 0
    assert tomllib.loads((out / "config.toml").read_text())["total_frames"] == 600


def test_the_python_interface(run: Path, tmp_path: Path) -> None:
    import numpy as np

    result = offbeat.train("debug", out=str(tmp_path / "api"), total_frames=400, evaluation={"every_frames": 0}, seed=3)
    assert result.finished and result.run == tmp_path / "api"
    agent = offbeat.load(result.run)
    assert agent.act(np.zeros((10, 5), np.float32)) in (0, 1, 2)
    assert len(offbeat.evaluate(run, episodes=4).returns) == 4
    with pytest.raises(UserError, match="unknown option"):
        offbeat.train("debug", learnr__batch_size=3)


def make_cartpole() -> gymnasium.Env:
    """An environment of a user's own."""
    return gymnasium.make("CartPole-v1")


def test_a_users_own_environment(tmp_path: Path) -> None:
    options = {"total_frames": 100, "evaluation": {"every_frames": 0, "at_end": False}, "engine": "inline"}
    result = offbeat.train("impala-cartpole", env_factory=make_cartpole, out=str(tmp_path / "own"), **options)
    assert tomllib.loads((result.run / "config.toml").read_text())["env"]["id"] == "make_cartpole"
    with pytest.raises(ValueError, match="make_cartpole"):
        offbeat.resume(result.run, 700)
    assert offbeat.resume(result.run, 700, env_factory=make_cartpole).frames >= 700


def test_scan_splits_switches_values_and_positions() -> None:
    line = ["debug", "--deterministic", "--learner.compile", "no", "--env=toy/catch", "--learner.batch-size", "8"]
    scanned = scan([*line, "--from", "x", "more"], own=("from",))
    assert scanned.positional == ["debug", "more"]
    assert scanned.own == {"from": "x"}
    assert scanned.options == [
        ("deterministic", "true"), ("learner.compile", "no"), ("env", "toy/catch"), ("learner.batch_size", "8"),
    ]  # fmt: skip
