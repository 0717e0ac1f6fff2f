"""Programs that start runs: what their processes could not import is said before a folder is made, the rest works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from offbeat.errors import UserError
from offbeat.run.folders import claim, default_folder

MINE = """
import os, sys, time
import gymnasium as gym, numpy as np, offbeat
from gymnasium import spaces

class Mine(gym.Env):
    observation_space = spaces.Box(0, 4, (2,), dtype=int)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, int), {}

    def step(self, action):
        self.t += 1
        return np.array([self.t % 5, 1]), 1.0, self.t == 7, False, {}

    def close(self):
        open(f"closed-{os.getpid()}-{id(self)}", "w").close()

def make():
    return Mine()

TINY = dict(engine="local", total_frames=100, out="run", log={"tensorboard": False},
            evaluation={"every_frames": 0, "episodes": 4, "envs": 2}, actor={"workers": 1, "envs_per_worker": 4})
"""
GUARD = "if __name__ == '__main__':\n    "


def start(folder: Path, text: str, *, how: str = "script") -> subprocess.CompletedProcess[str]:
    """Run a program: a script, a module, from standard input, or given to -c."""
    (folder / "program.py").write_text(text)
    command = {"script": ["program.py"], "module": ["-m", "program"], "stdin": ["-"], "-c": ["-c", text]}[how]
    given = text if how == "stdin" else ""
    return subprocess.run(
        [sys.executable, *command], cwd=folder, input=given, capture_output=True, text=True, check=False, timeout=200
    )


REFUSED = [
    ("script", MINE + "offbeat.train('debug', **TINY)", r"program.py, line \d+: the processes of a run import this"),
    ("module", MINE + "offbeat.train('debug', **TINY)", r"program.py, line \d+: the processes of a run import this"),
    ("script", MINE + "def main():\n    offbeat.train('debug', **TINY)\nmain()", "put the call below if __name__"),
    ("stdin", MINE + "offbeat.train('debug', env_factory=Mine, **TINY)", "defined in a notebook or on standard input"),
    ("-c", MINE + "offbeat.train('debug', env_factory=make, **TINY)", "defined in a notebook or on standard input"),
    ("stdin", MINE + "gym.register('Mine-v0', entry_point=Mine)\noffbeat.train('debug', env='Mine-v0', **TINY)",
     "the environment 'Mine-v0' that you registered"),
    ("script", MINE + GUARD + "offbeat.train('debug', env_factory=lambda: Mine(), **TINY)",
     "cannot be handed to the processes of the roles"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "text", "says"), REFUSED)
def test_what_processes_could_not_import_is_refused_before_a_folder_is_made(
    how: str, text: str, says: str, tmp_path: Path
) -> None:
    result = start(tmp_path, text, how=how)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert re.search(says, last) and last.startswith("offbeat.errors.UserError"), last
    assert not (tmp_path / "run").exists()


WORKS = [
    pytest.param("script", MINE + GUARD + "offbeat.train('debug', env_factory=Mine, **TINY)", marks=pytest.mark.slow),
    pytest.param("module", MINE + GUARD + "offbeat.train('debug', env_factory=make, **TINY)", marks=pytest.mark.slow),
    ("stdin", "import offbeat\noffbeat.train('debug', engine='local', total_frames=100, out='run')"),
    pytest.param("-c", "import offbeat; offbeat.train('debug', engine='local', total_frames=100, out='run')",
                 marks=pytest.mark.slow),
    ("script", MINE + GUARD + "gym.register('Mine-v0', entry_point=Mine)\n    "
     "offbeat.train('debug', env='Mine-v0', **TINY)"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "text"), WORKS)
def test_the_rest_works(how: str, text: str, tmp_path: Path) -> None:
    result = start(tmp_path, text, how=how)
    assert result.returncode == 0, result.stderr
    assert "finished: " in result.stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "__pycache__"] == ["run"]


def test_every_environment_is_closed_and_may_start_processes(tmp_path: Path) -> None:
    """Those of roles, and those that were looked at before; each one leaves a file when it is closed."""
    kids = """
import multiprocessing as mp

def work(queue):
    queue.put(os.getpid())

class Parent(Mine):
    def __init__(self):
        context = mp.get_context("spawn")
        queue = context.Queue()
        kid = context.Process(target=work, args=(queue,))
        kid.start()
        assert queue.get() != os.getpid()
        kid.join()
        open(f"made-{os.getpid()}-{id(self)}", "w").close()
"""
    result = start(tmp_path, MINE + kids + GUARD + "offbeat.train('debug', env_factory=Parent, **TINY)")
    assert result.returncode == 0, result.stderr
    made = {path.name.removeprefix("made-") for path in tmp_path.glob("made-*")}
    closed = {path.name.removeprefix("closed-") for path in tmp_path.glob("closed-*")}
    assert made == closed and len(made) >= 1 + 4 + 2


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("offbeat.run.folders.time", lambda: 1234.5)
    wanted = [default_folder("toy/catch") for _ in range(3)]
    assert len(set(wanted)) == 1, "none of them is there yet"
    got = []
    for folder in wanted:
        got.append(claim(folder))
        (got[-1] / "config.toml").touch()
    assert [folder.name for folder in got] == ["toy_catch_1234", "toy_catch_1234_2", "toy_catch_1234_3"]


def test_an_empty_folder_is_taken_as_it_is_and_one_that_cannot_be_made_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert claim(tmp_path / "mine") == tmp_path / "mine"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"run folder .* cannot be made: Not a directory"):
        claim(tmp_path / "file" / "run")


LINES: list[tuple[dict[str, Any], str]] = [
    ({"seed": 2**64}, "seed=18446744073709551616 is out of range"),
    ({"out": "file/run"}, "lies below '.*file', which is a file"),
    ({"out": "x" * 300}, "cannot be a folder: File name too long"),
    ({"out": "a\0b"}, "cannot be made: embedded null"),
    (
        {"preset": "impala-atari", "env": "CartPole-v1"},
        "agent 'impala' cannot train on CartPole-v1: torso",
    ),
    (
        {"preset": "apex-catch", "env": "Pendulum-v1"},
        "agent 'apex' cannot train on Pendulum-v1: value",
    ),
    ({"env_factory": 1}, "ZeroDivisionError: division by zero"),
]


class Broken:
    """A factory that raises."""

    def __call__(self) -> Any:
        return 1 / 0


@pytest.mark.parametrize(("options", "says"), LINES)
def test_what_a_user_can_mend_is_one_line(
    options: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import offbeat

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    given = dict(options)
    if "env_factory" in given:
        given["env_factory"] = Broken()
    with pytest.raises(UserError, match=says) as caught:
        offbeat.train(given.pop("preset", "debug"), **given)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_windows_is_told_of_wsl() -> None:
    program = "import sys; sys.platform = 'win32'; import offbeat"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stderr.strip().splitlines()[-1].startswith("ImportError: offbeat runs on Linux and macOS; on Windows")


@pytest.mark.parametrize("name", ["entry_point", "vector_entry_point"])
def test_an_id_that_is_registered_with_what_cannot_travel_is_refused(name: str) -> None:
    import gymnasium

    from offbeat.run.starting import check_start

    entries = {"entry_point": "tests.zoo.small:Small", name: lambda **_: None}
    gymnasium.register("Closed-v0", **entries)  # type: ignore[arg-type]
    try:
        with pytest.raises(UserError, match=f"'Closed-v0' that you registered, {name}=.* cannot be handed to"):
            check_start({}, "Closed-v0")
    finally:
        del gymnasium.registry["Closed-v0"]
