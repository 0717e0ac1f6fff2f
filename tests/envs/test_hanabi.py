"""Hanabi: rows of both players against OpenSpiel played by hand, what nobody may see, saving, seeds, errors."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from offbeat.cli import is_user_error
from offbeat.config.run_config import from_dict
from offbeat.config.validation import validate
from offbeat.envs import atari_games
from offbeat.envs.base import EnvConfig, EnvUnavailable, VectorEnv
from offbeat.envs.hanabi import GAMES, find_game
from offbeat.envs.listing import list_envs
from offbeat.envs.registry import env_spec, make_env
from offbeat.errors import UserError
from offbeat.types import LEGAL, OBSERVATION, EnvStep
from tests.envs.playing import assert_same

needs_openspiel = pytest.mark.skipif(
    find_spec("pyspiel") is None, reason='OpenSpiel is not installed: pip install "offbeat[hanabi]"'
)
SIZES = {"full": (658, 21), "small": (171, 12), "very-small": (106, 11)}
"""Game -> (values of an observation, actions)."""


def make(game: str, num_envs: int = 6, **switches: Any) -> VectorEnv:
    return make_env(EnvConfig(id=f"hanabi/{game}", **switches), num_envs, deterministic=True)


def random_legal(rows: EnvStep, generator: np.random.Generator) -> np.ndarray:
    legal = rows.observation[LEGAL]
    return np.where(legal, generator.random(legal.shape), -1.0).argmax(1)


def cards_and_moves(env: VectorEnv) -> list[list[int]]:
    """What happened in each game so far."""
    saved = env.state()
    return [history[:count].tolist() for history, count in zip(saved["history"], saved["count"], strict=True)]


class ByHand:
    """A plain OpenSpiel game, fed the moves that were chosen and the cards that the adapter drew."""

    def __init__(self, game: str) -> None:
        import pyspiel

        rules = GAMES[game]
        settings = {
            "players": 2,
            "colors": rules.colors,
            "ranks": rules.ranks,
            "hand_size": rules.hand_size,
            "max_information_tokens": rules.max_information_tokens,
            "max_life_tokens": rules.max_life_tokens,
        }
        self.game = pyspiel.load_game("hanabi", settings)
        self.state = self.game.new_initial_state()

    def deal(self, history: list[int]) -> None:
        while self.state.is_chance_node():
            card = history[len(self.state.history())]
            assert card in self.state.legal_actions()
            self.state.apply_action(card)
        assert self.state.history() == history

    def careful(self, generator: np.random.Generator) -> int:
        """By looking at the cards: a move that gains a point, else one that plays no card."""
        safe = []
        for move in self.state.legal_actions():
            child = self.state.clone()
            child.apply_action(move)
            if child.returns()[0] > self.state.returns()[0]:
                return move
            if "Play" not in self.state.action_to_string(move):
                safe.append(move)
        return int(generator.choice(safe))

    def check(self, rows: EnvStep, index: int) -> None:
        """Both players' views and their legal moves."""
        over = not rows.valid[2 * index]
        for player in range(2):
            row = 2 * index + player
            assert np.array_equal(rows.observation[OBSERVATION][row], self.state.observation_tensor(player))
            expected = np.zeros(rows.observation[LEGAL].shape[1], bool)
            moves = [] if over else self.state.legal_actions(player)
            expected[moves or [-1]] = True
            assert np.array_equal(rows.observation[LEGAL][row], expected)


@needs_openspiel
@pytest.mark.parametrize(("game", "skill"), [("full", 0.0), ("full", 1.0), ("small", 0.9), ("very-small", 0.8)])
def test_rows_and_scores_are_those_of_the_game_played_by_hand(game: str, skill: float) -> None:
    """Random legal moves; in a ``skill`` share of turns careful ones, so that games also end with points."""
    env = make(game, 6)
    generator = np.random.default_rng(1)
    env.reset(5)
    rows = env.recv()
    twins = [ByHand(game) for _ in range(3)]
    returns, ends, losses = np.zeros(6), [], 0
    for index, history in enumerate(cards_and_moves(env)):
        twins[index].deal(history)
        twins[index].check(rows, index)
    assert rows.first.all() and rows.valid.all() and not rows.raw_reward.any()
    for _ in range(400):
        action = random_legal(rows, generator)
        before, started = [], []
        for index, twin in enumerate(twins):
            started.append(twin.state.is_terminal())
            if started[-1]:
                twins[index] = ByHand(game)
            else:
                player = twin.state.current_player()
                if generator.random() < skill:
                    action[2 * index + player] = twin.careful(generator)
            before.append(twins[index].state.returns()[0])
            if not started[-1]:
                twin.state.apply_action(int(action[2 * index + player]))
        env.send(action)
        rows = env.recv()
        returns += rows.raw_reward
        for index, history in enumerate(cards_and_moves(env)):
            twin = twins[index]
            twin.deal(history)
            twin.check(rows, index)
            gained = twin.state.returns()[0] - before[index]
            losses += gained < 0
            over = twin.state.is_terminal()
            for row in (2 * index, 2 * index + 1):
                got = (rows.raw_reward[row], rows.terminated[row], rows.first[row], rows.valid[row])
                assert got == (gained, over, started[index], not over)
                assert not rows.truncated[row]
                if over:
                    assert returns[row] == twin.state.returns()[row % 2]
                    ends.append(returns[row])
                    returns[row] = 0
    assert len(ends) > 5
    assert (losses == 0) == (skill == 1.0) and (max(ends) < 3) == (skill == 0.0)


@needs_openspiel
@pytest.mark.parametrize("player", [0, 1])
def test_nobody_sees_their_own_cards(player: int) -> None:
    """Another hand of theirs changes nothing for the player, neither on turn nor off it, and much for the other one."""
    yellow, white, green, blue_one = [5, 6, 7, 8, 9], [15, 16, 17, 18, 19], [10, 11, 12, 13, 14], 20
    discard_oldest, play_oldest, hint_green, hint_blue, hint_two = 0, 5, 12, 14, 16
    seen = []
    for hidden in (yellow, white):
        if player == 0:  # hints green, the other discards and draws; then hints twos
            history, moves = [*hidden, *green, hint_green, discard_oldest, blue_one], [hint_two]
        else:  # sees the other play and draw, then hints blue
            history, moves = [*green, *hidden, play_oldest, blue_one], [hint_blue]
        env = make("full", 2)
        env.reset(0)
        saved = env.state()
        saved |= {"history": np.array([history]), "count": np.array([len(history)]), "turns": np.array([2])}
        env.load_state(saved)
        no_op = env.spec.action.num_actions - 1
        for move in moves:
            action = np.full(2, no_op)
            action[player] = move
            env.send(action)
            seen.append(env.recv().observation)
    for key in (OBSERVATION, LEGAL):
        assert np.array_equal(seen[0][key][player], seen[1][key][player])
    other = 1 - player
    assert not np.array_equal(seen[0][OBSERVATION][other], seen[1][OBSERVATION][other])
    assert not np.array_equal(seen[0][LEGAL][other], seen[1][LEGAL][other])  # another hand, other hints
    own_hand = slice(0, 125)  # where the encoding holds the other player's cards
    assert seen[0][OBSERVATION][player][own_hand].sum() == 5


@needs_openspiel
def test_one_player_chooses_and_the_other_waits() -> None:
    env = make("full", 8)
    generator = np.random.default_rng(0)
    env.reset(2)
    rows = env.recv()
    player, ended = np.zeros(4, int), np.zeros(4, bool)
    for _ in range(100):
        legal = rows.observation[LEGAL].reshape(4, 2, -1)
        assert np.array_equal(rows.first.reshape(4, 2), np.repeat(ended, 2).reshape(4, 2)) or rows.first.all()
        player[ended] = 0
        ended = ~rows.valid.reshape(4, 2)[:, 0]
        waits = legal[..., -1]
        assert (legal.sum(-1)[waits] == 1).all() and (legal.sum(-1) > 0).all()
        assert waits[ended].all() and (waits.sum(1)[~ended] == 1).all()
        assert np.array_equal(waits.argmin(1)[~ended], player[~ended])
        env.send(random_legal(rows, generator))
        player = np.where(ended, player, 1 - player)
        rows = env.recv()


@needs_openspiel
@pytest.mark.parametrize("game", list(SIZES))
def test_state_goes_on_exactly(game: str) -> None:
    one, two = (make(game, 6, max_steps=9, reward_clip="sign", reward_scale=0.5) for _ in range(2))
    generator = np.random.default_rng(0)
    one.reset(7)
    rows = one.recv()
    loaded = 0
    for step in range(200):
        if step in (40, 41, 77) or (step % 20 == 0 and not rows.valid.all()):
            saved = {name: value.copy() for name, value in one.state().items()}
            two.load_state(saved)
            assert all(np.array_equal(value, two.state()[name]) for name, value in saved.items())
            loaded += not rows.valid.all()
        action = random_legal(rows, generator)
        one.send(action)
        rows = one.recv()
        assert np.array_equal(rows.reward, 0.5 * np.sign(rows.raw_reward))
        assert not (rows.terminated & rows.truncated).any()
        if step >= 40:
            two.send(action)
            twin = two.recv()
            assert_same(rows, twin, step)
            assert np.array_equal(rows.observation[LEGAL], twin.observation[LEGAL])
    assert loaded > 0  # also with a finished game in hand


@needs_openspiel
def test_max_steps_cuts_games_and_counts_turns_of_both() -> None:
    env = make("full", 2, max_steps=4)
    assert env.spec.max_episode_steps == 4
    env.reset(0)
    rows = env.recv()
    for step in range(1, 16):
        hints = rows.observation[LEGAL][:, 10:20]
        env.send(np.where(hints.any(1), 10 + hints.argmax(1), 20))
        rows = env.recv()
        assert (rows.truncated == (step % 5 == 4)).all() and (rows.valid == ~rows.truncated).all()
        assert not rows.terminated.any() and (rows.first == (step % 5 == 0)).all()


@needs_openspiel
def test_a_game_that_is_cut_says_what_could_be_done_next() -> None:
    """It bootstraps, from the player's moves as if it went on; in a finished one only the extra action is left."""
    env = make("small", 4, max_steps=3)
    generator = np.random.default_rng(4)
    env.reset(1)
    rows = env.recv()
    twins = [ByHand("small") for _ in range(2)]
    cuts = finished = 0
    for _ in range(200):
        for index, history in enumerate(cards_and_moves(env)):
            twins[index] = ByHand("small")
            for action in history:
                twins[index].state.apply_action(action)
            for player in range(2):
                row, state = 2 * index + player, twins[index].state
                on_turn = not state.is_terminal() and state.current_player() == player
                wanted = state.legal_actions() if on_turn else [11]
                assert np.flatnonzero(rows.observation[LEGAL][row]).tolist() == wanted
            cuts += rows.truncated[2 * index]
            finished += rows.terminated[2 * index]
        saved = env.state()
        env.load_state(saved)
        action = random_legal(rows, generator)
        action[~rows.valid] = generator.integers(12, size=(~rows.valid).sum())  # ignored there
        env.send(action)
        rows = env.recv()
    assert cuts > 20 and finished > 5


@needs_openspiel
def test_seeds_decide_the_cards() -> None:
    starts = []
    for seed in (1, 1, 2):
        env = make("full", 40)
        env.reset(seed)
        starts.append(env.recv().observation[OBSERVATION])
    assert np.array_equal(starts[0], starts[1])
    assert len(np.unique(np.concatenate([starts[0], starts[2]]), axis=0)) == 80


@needs_openspiel
def test_the_deck_is_shuffled_fairly() -> None:
    """Three ones, two each of 2, 3, 4 and a single 5 of ten cards: so is each card that is dealt."""
    env = make("very-small", 8000)
    env.reset(0)
    cards = np.array(cards_and_moves(env))
    for place in range(4):
        assert np.bincount(cards[:, place], minlength=5) / 4000 == pytest.approx([0.3, 0.2, 0.2, 0.2, 0.1], abs=0.03)
    both_fives = (cards == 4).sum(1).max()
    assert both_fives == 1


@needs_openspiel
def test_illegal_actions_are_named() -> None:
    env = make("full", 4)
    env.reset(0)
    rows = env.recv()
    fine = np.array([5, 20, 5, 20])  # both games: the first player plays the oldest card
    for at, action, message in [
        (2, 0, r"environment 2 of hanabi/full took the illegal action 0; legal are \[5, 6, .*; choose where"),
        (3, 5, r"environment 3 .* action 5; legal are \[20\] \(its player is not on turn\)"),
        (0, 20, "environment 0 .* illegal action 20; legal are"),
    ]:
        wrong = fine.copy()
        wrong[at] = action
        with pytest.raises(ValueError, match=message):
            env.send(wrong)
    env.send(fine)  # nothing had happened
    assert env.state()["turns"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="actions reach from 0 to 21; allowed are 0 to 20"):
        env.send(np.array([0, 21, 0, 0]))
    rows = env.recv()
    generator = np.random.default_rng(0)
    while rows.valid[0]:
        env.send(random_legal(rows, generator))
        rows = env.recv()
    action = random_legal(rows, generator)
    action[:2] = [0, 7]  # ignored: the game is over
    env.send(action)
    assert env.recv().first[:2].all()


@needs_openspiel
@pytest.mark.parametrize("game", list(SIZES))
def test_spec_is_what_comes_out(game: str) -> None:
    env = make(game, 2)
    size, actions = SIZES[game]
    assert env.spec == env_spec(EnvConfig(id=f"hanabi/{game}"))
    assert {key: (spec.shape, spec.dtype) for key, spec in env.spec.observation.items()} == {
        OBSERVATION: ((size,), "uint8"),
        LEGAL: ((actions,), "bool"),
    }
    assert env.spec.action.num_actions == GAMES[game].num_actions == actions
    assert env.spec.reference_score == {"full": 25, "small": 10, "very-small": 5}[game]
    env.reset(0)
    for key, value in env.recv().observation.items():
        assert (value.shape[1:], value.dtype) == (env.spec.observation[key].shape, env.spec.observation[key].dtype)
    with pytest.raises(RuntimeError, match="recv"):
        env.recv()


@needs_openspiel
def test_games_have_two_players() -> None:
    with pytest.raises(UserError, match=r"hanabi/small has 2 players, .*; got 3 environments, use a multiple of 2"):
        make("small", 3)
    with pytest.raises(ValueError, match="steps all 4 environments at once"):
        make_env(EnvConfig(id="hanabi/small"), 4, batch_size=2)
    with pytest.raises(ValueError, match=r"sticky=0\.5 means nothing to hanabi/small"):
        make("small", 2, sticky=0.5)


def test_names_and_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atari_games, "game_names", dict)  # counting the actions of every cartridge takes a minute
    assert [find_game(name) for name in ("hanabi/very-small", "Hanabi/VerySmall", "hanabi/very_small")] == [
        "very-small"
    ] * 3
    assert find_game("hanabi/tiny") is None
    with pytest.raises(EnvUnavailable, match="no environment is called 'hanabi/smal'; did you mean hanabi/small"):
        env_spec(EnvConfig(id="hanabi/smal"))
    records = {record.id: record for record in list_envs()}
    assert [(records[f"hanabi/{game}"].actions, records[f"hanabi/{game}"].extra) for game in GAMES] == [
        ("21", "hanabi"),
        ("12", "hanabi"),
        ("11", "hanabi"),
    ]


def test_a_missing_openspiel_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in ``sys.modules`` cannot be imported: as if it were not installed. The message is one line for users."""
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    message = r'hanabi/full needs OpenSpiel, which is not installed; pip install "offbeat\[hanabi\]"'
    for ask in (env_spec, lambda config: make_env(config, 2)):
        with pytest.raises(EnvUnavailable, match=message) as error:
            ask(EnvConfig(id="hanabi/full"))
        assert is_user_error(error.value) and "\n" not in str(error.value)


@needs_openspiel
@pytest.mark.parametrize("name", ["actor.envs_per_worker", "evaluation.envs"])
def test_half_a_game_is_refused_before_anything_starts(name: str) -> None:
    whole: dict[str, Any] = {
        "env": {"id": "hanabi/small"}, "agent": {"name": "random"}, "learner": {"batch_size": 4},
        "actor": {"envs_per_worker": 4}, "evaluation": {"envs": 4, "episodes": 20},
    }  # fmt: skip
    validate(from_dict(whole))
    section, option = name.split(".")
    odd = whole | {section: whole[section] | {option: 5}}
    with pytest.raises(UserError, match=rf"{name}=5: hanabi/small has 2 players, .*; use a multiple of 2"):
        validate(from_dict(odd))
