"""Realtime learning on the Game Boy, and the campaigns of its figures: every published command, as it is published."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import offbeat
from offbeat.cli import main
from offbeat.config.model_sizes import MODEL_SIZES
from offbeat.config.run_config import RunConfig, load_preset
from offbeat.config.validation import check_delay, check_learners, check_ranges
from offbeat.envs.gameboy.games import FRAMES_PER_S, NOOP
from offbeat.run.campaign_file import read_campaign
from offbeat.run.planned import Planned

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"
Command = tuple[str, str, int, int, int]
"""(environment, model, delay, noops, seed) of a published simulator."""
ATARI = {"dqn": (1, 3, 5, 8, 29, 47, 70, 80, 599, 750), "rainbow": (1, 5, 8, 70, 599)}
TETRIS = {"dqn": (1, 5, 8, 70, 596)}
BATTLES, CATCHING = "gameboy/pokemon-blue-battles", "gameboy/pokemon-blue-catching"
POKEMON = {
    (BATTLES, 1.0, 7, 1, 0.04, "noop"), (CATCHING, 1.0, 7, 1, 0.04, "noop"),
    (BATTLES, 7.0, 12, 3, 0.1, "noop"), (CATCHING, 7.0, 12, 3, 0.1, "noop"),
    (BATTLES, 29.0, 72, 33, 0.01, "noop"), (CATCHING, 29.0, 72, 33, 0.01, "noop"),
    (BATTLES, 29.0, 72, 33, 0.01, "random"),
}  # fmt: skip
"""(environment, k, num_inf, num_learn, t_theta_max, default behaviour) of scripts/run_pokemon_experiments.sh."""


def commands(envs: tuple[str, ...], delays: dict[str, tuple[int, ...]]) -> set[Command]:
    """What a script of theirs runs: nothing and anything, then each delay with and without its noops."""
    found = {(env, model, 0, 0, seed) for env in envs for model in ("random", "noop") for seed in range(3)}
    for model, each in delays.items():
        found |= {(env, model, d, n, seed) for env in envs for d in each for n in (0, d) for seed in range(3)}
    return found


def run_of(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Planned, RunConfig]]:
    """Each run of a campaign, and its configuration."""
    monkeypatch.setattr(Planned, "check", lambda self: None)  # test_campaign does, of every campaign
    known: dict[Any, RunConfig] = {}
    for run in read_campaign(CAMPAIGNS / f"{path}.toml").runs:
        key = (run.preset, run.options)
        config = known.get(str(key)) or known.setdefault(str(key), run.config())
        yield run, config


@pytest.mark.parametrize(
    ("name", "envs", "delays"),
    [
        ("realtime_tetris", ("gameboy/tetris",), TETRIS),
        ("realtime_atari", ("Boxing", "Krull", "NameThisGame"), ATARI),
    ],
)
def test_every_command_of_a_simulator_is_a_run(
    name: str, envs: tuple[str, ...], delays: dict[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    published, exact, sized = set(), set(), set()
    for run, config in run_of(name, monkeypatch):
        check_delay(config)
        delay = config.delay
        width = getattr(config.agent, "torso_width", 1.0)
        command = (config.env.id, config.agent_name, delay.inference_frames, delay.noops, run.seed)
        if delay.semantics == "published" or config.agent_name in ("random", "noop"):
            published.add(command)
            assert width == 1.0
        elif run.entry == "sized":
            sized.add((config.agent.torso, width, delay.inference_frames, delay.mode))
        else:
            noops = delay.inference_frames if delay.mode == "sequential" else 0
            exact.add((*command[:3], noops, run.seed))
            assert width == 1.0
    assert published == commands(envs, delays)
    assert exact == {one for one in commands(envs, delays) if one[1] in delays}
    frames = [(row, row.tetris_frames if len(envs) == 1 else row.atari_frames) for row in MODEL_SIZES]
    sizes = {(row.torso, row.label_width, d) for row, d in frames if d and (row.label, row.torso) != ("1M", "deep1")}
    assert sized == {(*size, mode) for size in sizes for mode in ("async", "sequential")}


def test_every_command_on_the_wall_clock_is_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for run, config in run_of("realtime_pokemon", monkeypatch):
        check_ranges(config)
        check_learners(config)
        realtime = config.realtime
        assert realtime.fps == FRAMES_PER_S and config.delay.noop_action == NOOP and run.seed in range(3)
        shape = (config.agent.torso_width, realtime.inference, config.learner.count, realtime.first_estimate_s)
        if realtime.mode == "async":
            found.add((config.env.id, *shape, config.delay.default))
    assert found >= POKEMON
    others = {one for one in found if "blue" not in one[0] or one[1] == 98.0}
    assert found - POKEMON == others and {one[0].split("-")[1] for one in others} == {"red", "yellow", "blue"}


def test_the_presets_on_the_wall_clock_follow_the_table_of_sizes() -> None:
    for label, preset in (("1M", ""), ("10M", "-10m"), ("100M", "-100m"), ("1B", "-1b")):
        (row,) = [one for one in MODEL_SIZES if (one.label, one.torso) == (label, "deep1")]
        config = load_preset(f"realtime-pokemon{preset}")
        assert (config.agent.torso, config.agent.torso_width) == ("deep1", row.width)
        assert config.delay.inference_frames == row.tetris_frames and config.learner.mode == "async"
    config = load_preset("realtime-tetris")
    assert config.replay.samples_per_insert == config.learner.batch_size and config.actor.append_rows == 1
    assert (config.agent.explore, config.env.noop_max, config.delay.noop_action) == (16_001, 40, NOOP)


def test_the_claim_on_our_game_differs_in_nothing_but_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows per frame, exploration and the length of returns are alike in frames, whatever the mode."""
    cells = {}
    for run, config in run_of("delay_gameboy", monkeypatch):
        check_delay(config)
        assert config.env.frame_skip == config.eval_env.frame_skip == 1 and config.env.id == "gameboy/blocks"
        if run.entry in ("random", "noop"):
            continue
        delay, agent = config.delay, config.agent
        period = delay.inference_frames if delay.mode == "sequential" else 1
        cells.setdefault((delay.mode, delay.inference_frames), []).append(run.seed)
        assert (config.total_frames, delay.noop_action) == (500_000, NOOP)
        assert config.replay.samples_per_insert == 2 * period and agent.discount == 0.9975
        assert abs(agent.explore * period - 100_000) < period and abs(agent.n_step * period - 20) < max(5, period)
        assert config.replay.capacity * period >= 500_000
    assert cells == {
        (mode, d): [100, 101, 102]
        for mode, d in [("async", 0), ("async", 1), ("async", 8), ("async", 70), ("sequential", 8), ("sequential", 70)]
    }


@pytest.mark.parametrize("name", ["realtime-tetris", "realtime-pokemon", "realtime-pokemon-10m"])
def test_what_would_run_is_told_without_a_cartridge(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["graph", name, "--env.folder", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "realtime_actor" in told.out or name == "realtime-tetris"
    assert told.err.startswith("offbeat: warning: it cannot be trained here yet: gameboy/")
    assert told.err.count("\n") == 1
    assert main(["train", name, "--env.folder", str(tmp_path), "--out", str(tmp_path / "run")]) != 0
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "gameboy/" in told.err and not (tmp_path / "run").exists()


QUIET: dict[str, Any] = {"evaluation__at_end": False, "log__tensorboard": False, "log__dashboard": False}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("realtime-tetris", {"delay__inference_frames": 3}),
        ("realtime-tetris", {"delay__inference_frames": 3, "delay__mode": "sequential"}),
        ("realtime-tetris", {"agent": "noop", "agent__action": NOOP}),
        ("realtime-pokemon", {"replay__samples_per_insert": 8.0}),
        ("realtime-gameboy-battles", {}),
        ("dqn-gameboy-blocks", {}),
    ],
)
def test_a_preset_runs_on_our_cartridges(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("pyboy")
    pytest.importorskip("cv2")
    if name == "realtime-tetris":
        options = {"env__id": "gameboy/blocks", "env__states": "[]", **options}
    if name == "realtime-pokemon":
        options = {"env__id": "gameboy/battles", **options}
    if name.startswith("realtime") and "agent" not in options and name != "realtime-gameboy-battles":
        options["agent__torso_width"] = 0.0625
    config = load_preset(name)
    frames = 150 * config.env.frame_skip
    result = offbeat.train(name, engine="inline", total_frames=frames, out=str(tmp_path / "run"), **QUIET, **options)
    assert result.finished and result.agent_steps > 0


@pytest.fixture
def curve() -> ModuleType:
    """The script that draws scores over delays."""
    spec = importlib.util.spec_from_file_location("realtime_curve", CAMPAIGNS / "realtime_curve.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scores_are_drawn_over_the_delay(curve: ModuleType, tmp_path: Path) -> None:
    rows = [
        "name,preset,seed,score,mean,delay.inference_frames,delay.mode,env.id",
        "dqn-env=Boxing-inference_frames=8-mode=async,p,0,final,3.0,8,async,Boxing",
        "dqn-env=Boxing-inference_frames=8-mode=async,p,1,final,5.0,8,async,Boxing",
        "dqn-env=Boxing-inference_frames=8-mode=async,p,1,one life,7.0,8,async,Boxing",
        "dqn-env=Boxing-inference_frames=70-mode=async,p,0,final,2.0,70,async,Boxing",
        "random-env=Boxing,p,0,final,-1.0,,,Boxing",
        "dqn-env=Krull-inference_frames=8-mode=async,p,0,final,300.0,8,async,Krull",
    ]
    file = tmp_path / "campaign.csv"
    file.write_text("\n".join(rows) + "\n")
    assert curve.read(file) == {
        "Boxing": {"dqn-mode=async": {8: [3.0, 5.0], 70: [2.0]}, "random": {None: [-1.0]}},
        "Krull": {"dqn-mode=async": {8: [300.0]}},
    }
    curve.main(file, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    file.write_text(rows[0] + "\n")
    with pytest.raises(SystemExit, match="holds no final score yet"):
        curve.main(file, tmp_path / "none.png")
