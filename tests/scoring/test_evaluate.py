"""Playing whole episodes: equal shares, raw scores, frame stacks, recurrent state; and the statistics of returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from offbeat.acting.episodes import idle_actions, play_episodes
from offbeat.acting.scores import Evaluation, bootstrap_interval, interquartile_mean
from offbeat.errors import UserError
from offbeat.run.load import LoadedAgent, _device
from offbeat.scoring.evaluate import evaluate_run, is_greedy
from offbeat.types import (
    OBSERVATION,
    ActionSpec,
    ActOutput,
    ArrayDict,
    ArraySpec,
    CoreState,
    EnvSpec,
    EnvStep,
    Inputs,
)  # fmt: skip

SPEC = EnvSpec(
    id="scripted",
    observation={OBSERVATION: ArraySpec((1, 1, 1), "float32")},
    action=ActionSpec("discrete", 7),
    frame_stack=3,
    stacked=(OBSERVATION,),
    frame_skip=4,
)


def length(env: int, episode: int) -> int:
    """Steps of an episode: later environments play far longer ones."""
    return 2 + (3 * env + episode) % 5 + 4 * env


class Scripted:
    """Environment i plays episodes of ``length(i, 0), length(i, 1), ...``; its frame is its step in the episode.

    The raw reward of a step is its number, the reward trained on is its negative. Rows come in batches of ``batch``, of
    whichever environments are next in turn.
    """

    def __init__(self, num_envs: int, batch: int | None = None) -> None:
        self.spec, self.num_envs, self.batch_size = SPEC, num_envs, batch or num_envs
        self.sent: list[tuple[int, int]] = []

    def reset(self, seed: int) -> None:
        self.queue = list(range(self.num_envs))
        self.episode = [0] * self.num_envs
        self.time = [0] * self.num_envs
        self.seeds = seed

    def recv(self) -> EnvStep:
        self.ids = np.array(self.queue[: self.batch_size])
        self.queue = self.queue[self.batch_size :]
        time = np.array([self.time[i] for i in self.ids], np.float32)
        last = np.array([self.time[i] == length(i, self.episode[i]) for i in self.ids])
        seen = {OBSERVATION: time.reshape(-1, 1, 1, 1) + 1}
        return EnvStep(self.ids, seen, -time, time, last, np.zeros_like(last), time == 0, ~last)

    def send(self, action: np.ndarray) -> None:
        assert len(action) == len(self.ids)
        for env, chosen in zip(self.ids, action, strict=True):
            self.sent.append((int(env), int(chosen)))
            if self.time[env] == length(env, self.episode[env]):
                self.episode[env] += 1
                self.time[env] = 0
            else:
                self.time[env] += 1
            self.queue.append(int(env))

    def state(self) -> ArrayDict:
        return {}

    def load_state(self, state: ArrayDict) -> None: ...

    def close(self) -> None: ...


class Checking:
    """An agent that knows what it must be shown: its recurrent state counts the steps of the episode."""

    wants_last = True
    discount = 0.99
    config = None

    def __init__(self, spec: EnvSpec = SPEC) -> None:
        self.spec, self.network = spec, nn.Linear(1, 1)
        self.batches: list[int] = []
        self.greedy: list[bool] = []

    def initial_state(self, batch: int) -> CoreState:
        return {"count": torch.zeros(batch, 1)}

    def row_extras(self) -> dict[str, ArraySpec]:
        return {}

    def act(self, inputs: Inputs, state: CoreState, generator: Any, greedy: bool = False) -> ActOutput:
        assert not self.network.training
        first = inputs.first[0]
        count = torch.where(first[:, None], 0.0, state["count"])[:, 0]
        stack = inputs.observation[OBSERVATION][0, :, :, 0, 0]
        expected = torch.stack([torch.clamp(count - 1, min=0), count, count + 1], 1)
        assert torch.equal(stack, expected), (stack, expected)
        assert inputs.last_action is not None
        assert inputs.last_reward is not None
        assert torch.equal(inputs.last_action[0], torch.where(first, 0, (count - 1).long() % 7))
        assert torch.equal(inputs.last_reward[0], -count)
        self.batches.append(len(count))
        self.greedy.append(greedy)
        return ActOutput(count.long() % 7, {}, {"count": (count + 1)[:, None]})

    def loss(self, batch: Any, progress: float) -> Any: ...


def triangle(n: int) -> float:
    return n * (n + 1) / 2


@pytest.mark.parametrize(("num_envs", "batch"), [(1, None), (4, None), (4, 2), (5, 3)])
@pytest.mark.parametrize("episodes", [1, 4, 11])
def test_each_environment_plays_its_share_and_raw_rewards_are_summed(num_envs: int, batch: int, episodes: int) -> None:
    agent = Checking()
    result = play_episodes(Scripted(num_envs, batch), agent, episodes=episodes, greedy=True, version=12)
    shares = [episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)]
    lengths = [length(i, j) for i in range(num_envs) for j in range(shares[i])]
    assert result.lengths.tolist() == lengths
    assert result.returns.tolist() == [triangle(n) for n in lengths]
    assert result.frames == 4 * sum(lengths)
    assert result.frames_each.tolist() == [4 * length for length in lengths]
    assert (result.version, result.policy, result.complete) == (12, "greedy", True)
    assert all(agent.greedy)


def test_environments_that_have_played_their_share_idle() -> None:
    env, agent = Scripted(3), Checking()
    play_episodes(env, agent, episodes=3)
    assert agent.batches[0] == 3
    assert agent.batches[-1] == 1  # only the last one still plays
    over = [i for i, (number, _) in enumerate(env.sent) if number == 0][length(0, 0) + 1 :]
    assert over
    assert {env.sent[i][1] for i in over} == {0}


def test_stop_keeps_the_episodes_that_have_ended() -> None:
    calls = iter(range(100))
    result = play_episodes(Scripted(2), Checking(), episodes=20, stop=lambda: next(calls) >= 12)
    assert not result.complete
    assert 0 < len(result.returns) < 20
    assert result.returns.tolist() == [triangle(n) for n in result.lengths]
    empty = play_episodes(Scripted(2), Checking(), episodes=20, stop=lambda: True)
    assert empty.returns.size == 0
    assert np.isnan(empty.mean)


def test_network_goes_back_to_training_mode() -> None:
    agent = Checking()
    agent.network.train()
    play_episodes(Scripted(2), agent, episodes=2)
    assert agent.network.training


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="episodes=0 must be at least 1"):
        play_episodes(Scripted(1), Checking(), episodes=0)


def test_every_row_is_shown_to_the_callback() -> None:
    seen: list[bool] = []
    play_episodes(Scripted(1), Checking(), episodes=2, on_step=lambda step: seen.append(bool(step.first[0])))
    assert len(seen) == length(0, 0) + length(0, 1) + 2
    assert sum(seen) == 2


def test_idle_actions_are_allowed_ones() -> None:
    box = ActionSpec("continuous", shape=(2,), low=(0.5, -1.0), high=(1.0, 1.0))
    assert idle_actions(box, 3).tolist() == [[0.5, 0.0]] * 3
    assert idle_actions(ActionSpec("discrete", 4), 2).tolist() == [0, 0]
    legal = np.array([[False, False, True, True], [True, False, False, False]])
    assert idle_actions(ActionSpec("discrete", 4), 2, legal).tolist() == [2, 0]


def test_toy_catch_scores_of_the_random_agent() -> None:
    from offbeat.agents.make import agent_config_class, make_agent
    from offbeat.envs.base import EnvConfig
    from offbeat.envs.registry import make_env

    env = make_env(EnvConfig(id="toy/catch", length=6), 8)
    agent = make_agent("random", agent_config_class("random")(), env.spec)
    results = [play_episodes(env, agent, episodes=400, seed=seed) for seed in (3, 3, 4)]
    assert set(results[0].returns) == {-1.0, 1.0}
    assert results[0].mean == pytest.approx(-0.6, abs=0.15)
    assert results[0].returns.tolist() == results[1].returns.tolist()
    assert results[0].returns.tolist() != results[2].returns.tolist()
    assert set(results[0].lengths) == {5}


def test_interquartile_mean_leaves_a_quarter_out_on_each_side() -> None:
    assert interquartile_mean(np.array([100, 0, 2, 3, -50, 4, 5, 90, -9, -8, 6, 7.0])) == pytest.approx(20 / 6)
    assert interquartile_mean(np.array([1, 5, 9.0])) == 5
    assert interquartile_mean(np.array([7.0])) == 7
    assert np.isnan(interquartile_mean(np.array([])))


def test_bootstrap_interval_has_the_width_that_theory_says() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(np.array([5.0])) == (5, 5)


def test_record_holds_what_the_files_need() -> None:
    result = Evaluation(np.array([1.0, 3.0]), np.array([10, 20]), frames=120, version=7, at={"frames": 4000.0})
    record = result.record()
    assert (record["mean"], record["std"], record["min"], record["max"]) == (2, 1, 1, 3)
    assert (record["version"], record["frames"], record["played_frames"], record["returns"]) == (7, 4000, 120, [1, 3])
    assert record["low"] <= record["mean"] <= record["high"]
    assert "2 episodes (sampled): mean 2.00" in result.summary()


def test_loaded_agent_remembers_stacks_states_and_last_actions() -> None:
    loaded = LoadedAgent(Checking())
    action: Any = 0
    for episode in range(2):
        for step in range(4):
            action = loaded.act(np.full((1, 1, 1), step + 1.0), reward=-step)
            assert action == step % 7  # the agent itself checks what it is shown
            assert isinstance(action, int)
        if episode == 0:
            loaded.reset()


def test_loaded_agent_takes_batches_whose_episodes_start_apart() -> None:
    loaded = LoadedAgent(Checking())
    times = np.zeros(3)
    for step in range(6):
        restart = np.array([False, step == 2, step == 4])
        loaded.reset(restart)
        times[restart] = 0
        actions = loaded.act((times + 1).reshape(3, 1, 1, 1), reward=-times)
        assert actions.tolist() == times.tolist()
        times += 1
    with pytest.raises(ValueError, match="batch of 2, before it was 3"):
        loaded.act(np.ones((2, 1, 1, 1)))
    loaded.reset()
    assert loaded.act(np.ones((2, 1, 1, 1))).tolist() == [0, 0]


def test_loaded_agent_names_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"has shape \[3\]; expected \[1, 1, 1\]"):
        LoadedAgent(Checking()).act(np.zeros(3))
    with pytest.raises(ValueError, match="observation has"):
        LoadedAgent(Checking()).act({"image": np.zeros((1, 1, 1))})


@pytest.fixture
def catch_run(tmp_path: Path) -> Path:
    """A run folder with the weights of an agent that was never trained."""
    return make_run(tmp_path / "run", "impala-catch")


def make_run(run: Path, preset: str, *overrides: tuple[str, str]) -> Path:
    """A run folder as training leaves it: config.toml and a checkpoint, with fresh weights."""
    from offbeat.agents.make import make_agent
    from offbeat.config.run_config import apply_overrides, load_preset, to_toml
    from offbeat.envs.registry import env_spec
    from offbeat.storage import checkpoint

    config = apply_overrides(load_preset(preset), overrides)
    run.mkdir(parents=True)
    (run / "config.toml").write_text(to_toml(config))
    agent = make_agent(config.agent_name, config.agent, env_spec(config.env))
    weights = {checkpoint.WEIGHTS + name: value for name, value in agent.network.state_dict().items()}
    meta = {"counters": {"agent_steps": 640, "updates": 4, "frames": 640}}
    checkpoint.save(run, 640, {"learner": weights}, meta, keep=1)
    return run


def test_a_run_is_evaluated_from_its_folder(catch_run: Path) -> None:
    first, second = (evaluate_run(catch_run, 30, seed=5) for _ in range(2))
    assert len(first.returns) == 30
    assert first.returns.tolist() == second.returns.tolist()
    assert set(first.returns) <= {-1.0, 1.0}
    assert first.version == 4
    assert evaluate_run(catch_run, 3, "greedy").policy == "greedy"


def test_a_value_agent_asked_to_sample_says_that_it_plays_greedily(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from offbeat.commands.scores import evaluate, record

    run = make_run(tmp_path / "run", "apex-catch", ("evaluation.policy", "sampled"))
    assert evaluate([str(run), "--episodes", "3"]) == 0
    shown = capsys.readouterr()
    assert "3 episodes (greedy): mean" in shown.out
    assert shown.err == "", "nothing was asked for"
    assert evaluate([str(run), "--episodes", "3", "--policy", "sampled"]) == 0
    shown = capsys.readouterr()
    assert "3 episodes (greedy): mean" in shown.out
    assert shown.err == (
        "offbeat: policy 'sampled' was asked for; agent 'apex' plays 'greedy': it has no policy to draw from and takes "
        "the best action\n"
    )
    assert record([str(run), "--format", "gif", "--policy", "sampled"]) == 0
    assert "000000000640_greedy_0.gif" in capsys.readouterr().out
    lines = {"rainbow": "noisy", "random": "sampled", "noop": "greedy"}
    for agent, played in lines.items():
        other = make_run(tmp_path / agent, "impala-catch", ("agent", agent), ("evaluation.policy", "sampled"))
        assert evaluate_run(other, 2).policy == played


def test_load_gives_an_agent_that_acts(catch_run: Path) -> None:
    from offbeat.run.load import load

    loaded = load(catch_run)
    observation = np.zeros(loaded.spec.observation[OBSERVATION].shape, np.float32)
    assert loaded.act(observation) in range(3)
    loaded.reset()
    assert loaded.act(np.stack([observation] * 2)).shape == (2,)


@pytest.mark.parametrize(
    ("wanted", "gpus", "place"),
    [
        ("cuda", 0, "cpu"),
        ("auto", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("auto", 1, "cuda"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
        ("cuda:1", 1, "cpu"),
    ],
)
def test_a_run_is_loaded_on_its_device_where_there_is_such_a_one(
    wanted: str, gpus: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert _device(wanted) == place


def test_errors_of_the_user_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="policy 'best' is unknown; allowed: greedy, sampled"):
        is_greedy("best")
    with pytest.raises(UserError, match="is no run folder"):
        evaluate_run(tmp_path / "nothing")
