"""Games of several players: one episode and one score each, shared by games and not by players."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offbeat.acting.episodes import play_episodes
from offbeat.acting.scores import Evaluation, bootstrap_interval
from offbeat.agents.random import Agent, Config
from offbeat.envs.base import EnvConfig
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.registry import make_env
from tests.scoring import test_evaluate
from tests.scoring.test_evaluate import SPEC, Checking, Scripted, triangle


class Games(Scripted):
    """Games of two players: environments 2g and 2g + 1 play the episodes of game g and get the same rewards."""

    def __init__(self, num_envs: int, batch: int | None = None) -> None:
        super().__init__(num_envs, batch)
        self.spec = replace(SPEC, players=2)


def lengths_of_games(games: int, episodes: int) -> list[int]:
    """By hand: game g's k-th episode in order of game, each playing its equal share, the first ones one more."""
    shares = [episodes // games + (g < episodes % games) for g in range(games)]
    return [game_length(g, k) for g in range(games) for k in range(shares[g])]


def game_length(game: int, episode: int) -> int:
    """Steps of a game's episode."""
    return 2 + (3 * game + episode) % 5 + 4 * game


@pytest.mark.parametrize(("num_envs", "batch"), [(2, None), (4, None), (4, 2), (6, 5), (4, 3)])
@pytest.mark.parametrize("episodes", [1, 2, 5])
def test_a_game_of_two_players_is_one_episode(
    num_envs: int, batch: int | None, episodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the players' rows come in different batches: then a game counts when both have ended."""
    monkeypatch.setattr(test_evaluate, "length", lambda env, episode: game_length(env // 2, episode))
    env = Games(num_envs, batch)
    result = play_episodes(env, Checking(env.spec), episodes=episodes)
    lengths = lengths_of_games(num_envs // 2, episodes)
    assert result.lengths.tolist() == lengths
    assert result.returns.tolist() == [triangle(n) for n in lengths]
    assert result.frames_each.tolist() == [4 * length for length in lengths], "those of the longest player"
    assert result.frames == 2 * 4 * sum(lengths)  # a row of either player is a step of four frames
    assert result.complete
    record = result.record()
    assert (record["episodes"], record["returns"]) == (episodes, result.returns.tolist())
    assert (record["low"], record["high"]) == bootstrap_interval(np.array([float(triangle(n)) for n in lengths]))


@pytest.mark.parametrize("delay", [0, 3, 1000])
def test_what_goes_by_before_the_first_decision_counts(delay: int) -> None:
    """CartPole gives 1 in each of its frames, with and without a decision."""
    config = EnvConfig(id="CartPole-v1", frame_stack=1, delay=DelayConfig(inference_frames=delay, history=1))
    env = make_env(config, 2)
    result = play_episodes(env, Agent(Config(), env.spec), episodes=6)
    assert result.returns.sum() == result.frames > 6 * 7
    before = np.minimum(result.returns - 1, delay)  # an episode without any decision still has its last row
    assert result.lengths.tolist() == (result.returns - before).tolist()


def test_two_players_are_no_two_samples() -> None:
    """Of n games the interval's half width is 1.96 s / sqrt(n); were players counted apart it would be 0.71 of that."""
    games = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = Evaluation(games, np.ones(400, np.int64)).interval()
    assert (high - low) / 2 == pytest.approx(1.96 * games.std() / np.sqrt(400), rel=0.05)
    apart = bootstrap_interval(np.repeat(games, 2))
    assert (apart[1] - apart[0]) / (high - low) == pytest.approx(np.sqrt(0.5), rel=0.1)


def test_stop_leaves_out_a_game_that_only_one_player_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_evaluate, "length", lambda env, episode: 3)
    env = Games(2, 1)  # players in turn: the first one ends its game in the 7th batch, the second one in the 8th
    for batches, games in ((7, 0), (8, 1)):
        calls = iter(range(100))
        result = play_episodes(env, Checking(env.spec), episodes=9, stop=lambda c=calls, n=batches: next(c) >= n)
        assert (result.returns.tolist(), result.complete) == ([6.0] * games, False)


class Plays(Checking):
    """The same, but it says how it plays."""

    def policy_name(self, greedy: bool) -> str:
        return "greedy"


def test_the_policy_is_named_by_the_agent_where_it_knows_better() -> None:
    for agent, names in ((Checking(), ["sampled", "greedy"]), (Plays(), ["greedy", "greedy"])):
        got = [play_episodes(Scripted(1), agent, episodes=1, greedy=greedy).policy for greedy in (False, True)]
        assert got == names
