"""Hanabi in evaluations, runs, exports and films: a game is one episode of both players; agents take legal moves."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from offbeat.acting.episodes import play_episodes
from offbeat.agents import apex
from offbeat.agents.make import agent_config_class, make_agent
from offbeat.config.run_config import from_dict
from offbeat.config.validation import validate
from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.hanabi import HanabiVector
from offbeat.envs.registry import env_spec, make_env
from offbeat.errors import UserError
from offbeat.report.pictures import open_camera
from offbeat.report.record import record_run
from offbeat.run.export import DESCRIPTION, export_run
from offbeat.run.load import load
from offbeat.run.train import train
from offbeat.scoring.evaluate import evaluate_run
from offbeat.types import LEGAL, EnvStep
from tests.envs.test_hanabi import make, needs_openspiel, random_legal


@needs_openspiel
@pytest.mark.parametrize("episodes", [1, 2, 5, 6])
def test_a_game_is_one_episode(episodes: int) -> None:
    """Two games at a time: each has one score, that of the cards laid. Who has played its share makes any move."""
    spec = env_spec(EnvConfig(id="hanabi/very-small"))
    agent = make_agent("apex", apex.Config(hidden_size=(8,), head_size=0), spec)
    games: list[tuple[float, int]] = []  # score and turns, as the rows of the first players say
    running = np.zeros((2, 2))
    seen = []

    def watch(rows: EnvStep) -> None:
        seen.append(len(rows.env_ids))
        assert (rows.raw_reward[::2] == rows.raw_reward[1::2]).all()
        running[:, 0] += rows.raw_reward[::2]
        running[:, 1] += ~rows.first[::2]
        for game in np.flatnonzero(~rows.valid[::2]):
            games.append((float(running[game, 0]), int(running[game, 1])))
            running[game] = 0

    result = play_episodes(make("very-small", 4), agent, episodes=episodes, on_step=watch)
    assert result.complete
    assert (len(result.returns), len(result.lengths)) == (episodes, episodes)
    left = list(games)
    for played in zip(result.returns.tolist(), result.lengths.tolist(), strict=True):
        left.remove(played)
    assert result.frames == 2 * result.lengths.sum(), "a row of either player is a frame"
    assert result.policy == "greedy"


@needs_openspiel
@pytest.mark.parametrize("agent", ["random", "noop", "impala", "dqn", "apex", "rainbow", "r2d2"])
def test_every_agent_plays_whole_games(agent: str) -> None:
    options = {"core_size": 4, "head_size": 4} if agent == "r2d2" else {}
    made = make_agent(agent, agent_config_class(agent)(**options), env_spec(EnvConfig(id="hanabi/small")))
    for greedy in (False, True):
        result = play_episodes(make("small", 4, max_steps=12), made, episodes=4, greedy=greedy)
        assert len(result.returns) == 4 and result.lengths.max() <= 12


@needs_openspiel
@pytest.mark.parametrize("agent", ["impala", "random", "apex"])
def test_runs_train_report_games_and_are_looked_at(agent: str, tmp_path: Path) -> None:
    """Train, evaluate, load, export and film, as a user does."""
    samplers = [{"kind": "prioritised", "min_rows": 100}] if agent == "apex" else [{"kind": "fifo"}]
    config = from_dict({
        "env": {"id": "hanabi/small", "max_steps": 15}, "agent": {"name": agent}, "engine": "inline", "device": "cpu",
        "total_frames": 1500, "actor": {"envs_per_worker": 4}, "learner": {"batch_size": 4, "unroll_length": 5},
        "replay": {"samplers": samplers, "samples_per_insert": 1, "capacity": 4000} if agent == "apex" else {},
        "evaluation": {"envs": 4, "episodes": 6, "every_frames": 0}, "log": {"tensorboard": False, "dashboard": False},
        "out": str(tmp_path / "run"),
    })  # fmt: skip
    run = Path(train(config).run)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    games = [record for record in records if record["kind"] == "episode"]
    turns = sum(record["length"] for record in games)
    assert sum(record["episode_frames"] for record in games) == 2 * turns
    assert all(0 < record["length"] <= 15 for record in games)
    (evaluation,) = [record for record in records if record["kind"] == "evaluation"]
    assert (evaluation["episodes"], len(evaluation["returns"])) == (6, 6)
    assert evaluation["policy"] == {"impala": "sampled", "random": "sampled", "apex": "greedy"}[agent]
    assert not [r for r in records if r["kind"] == "learner" and not np.isfinite(r.get("loss", 0.0))]

    assert len(evaluate_run(run, 5).returns) == 5, "five games"
    loaded = load(run)
    env = make("small", 2)
    env.reset(0)
    seen = env.recv().observation
    actions = loaded.act(seen)
    assert seen[LEGAL][np.arange(2), actions].all()
    assert loaded.agent.spec.players == 2
    film = record_run(run, format="gif", episodes=1)
    with Image.open(film) as picture:
        assert picture.info["duration"] >= 1000, "people read it"
    if agent != "random":
        check_export(run)


def check_export(run: Path) -> None:
    """What the exported program likes best is legal, and its description says what stands in the others' places."""
    extra = {DESCRIPTION: ""}
    program = torch.export.load(export_run(run), extra_files=extra).module()
    described = json.loads(extra[DESCRIPTION])
    name = "q" if "q" in described["outputs"] else "policy"
    assert "-1e+30 where observation.legal_actions is False" in described["outputs"][name]
    assert described["inputs"]["observation.legal_actions"] == {"shape": [1, "B", 12], "dtype": "bool"}
    env, generator = make("small", 6), np.random.default_rng(0)
    env.reset(0)
    rows = env.recv()
    for _ in range(20):
        seen = {key: torch.from_numpy(value)[None] for key, value in rows.observation.items()}
        scores = program(seen, torch.from_numpy(rows.first)[None], {})[name][0]
        legal = seen[LEGAL][0]
        assert legal.gather(-1, scores.argmax(-1, keepdim=True)).all()
        assert (scores[~legal] == -1e30).all() and (scores[legal].abs() < 1e3).all()
        env.send(random_legal(rows, generator))
        rows = env.recv()


@needs_openspiel
def test_the_game_is_shown_as_text() -> None:
    camera = open_camera(EnvConfig(id="hanabi/full"))
    assert (camera.env.num_envs, camera.fps) == (2, 1.0)
    camera.env.reset(0)
    frames, texts, generator = [], [], np.random.default_rng(0)
    rows = camera.env.recv()
    for _ in range(12):
        frames.append(camera.picture(rows))
        texts.append(camera.env.text())  # type: ignore[attr-defined]
        camera.env.send(random_legal(rows, generator))
        rows = camera.env.recv()
    assert all(frame is not None and frame.shape == frames[0].shape for frame in frames)
    assert all((one != other).any() for one, other in pairwise(frames))
    assert texts[0].startswith("Turn 0, score 0\n\n") and "Fireworks:" in texts[0] and "Hands:" in texts[0]
    assert texts[1].startswith("Turn 1, score ") and "\nPlayer 1: " in texts[1] and "\nPlayer 2: " in texts[2]
    saved = camera.env.state()
    shown = camera.env.text()  # type: ignore[attr-defined]
    camera.env.load_state(saved)
    assert camera.env.text() == shown  # type: ignore[attr-defined]


@needs_openspiel
def test_episodes_of_an_evaluation_are_games_shared_by_games() -> None:
    whole: dict[str, Any] = {
        "env": {"id": "hanabi/small"}, "agent": {"name": "random"}, "learner": {"batch_size": 4},
        "actor": {"envs_per_worker": 4}, "evaluation": {"envs": 6, "episodes": 9},
    }  # fmt: skip
    validate(from_dict(whole))
    odd = whole | {"evaluation": {"envs": 6, "episodes": 10}}
    message = (
        r"evaluation.episodes=10 cannot be shared equally by the 3 games of evaluation.envs=6; use a multiple of 3"
    )
    with pytest.raises(UserError, match=message):
        validate(from_dict(odd))


@needs_openspiel
def test_a_users_own_games_of_several_players_are_counted_alike() -> None:
    """A factory of games says how many players they have, so that one game can be made to ask for its spec."""

    def own(config: EnvConfig, num_envs: int, **options: Any) -> VectorEnv:
        return HanabiVector(replace(config, id="own"), "very-small", num_envs)

    with pytest.raises(UserError, match="own has 2 players, and each is an environment; got 1 environments"):
        env_spec(EnvConfig(id="own"), own)
    own.players = 2  # type: ignore[attr-defined]
    assert env_spec(EnvConfig(id="own"), own).players == 2
    config = from_dict({"env": {"id": "own"}, "agent": {"name": "random"}, "learner": {"batch_size": 4}})
    with pytest.raises(UserError, match=r"evaluation.envs=3: own has 2 players"):
        validate(replace(config, evaluation=replace(config.evaluation, envs=3)), env_factory=own)

    def cut(config: EnvConfig, num_envs: int, **options: Any) -> VectorEnv:
        env = own(config, num_envs)
        env.num_envs -= 1
        return env

    with pytest.raises(ValueError, match=r"own has 2 players, .*; its factory gave 3 environments, allowed are"):
        make_env(EnvConfig(id="own"), 4, factory=cut)
