"""Hanabi for two players (Bard et al. 2020) through OpenSpiel: each player is an environment, a stream, of its own.

Environments 2g and 2g + 1 are the first and the second player of game g. At every turn both get a row. Who is on turn
chooses among the game's legal moves; the other may only take the extra last action, which does nothing, and sees what
happens. So both streams run in step with the game, discounts count turns, and both rows hold the shared reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.rows import check_actions, handed_out, make_rows, reject_unused
from offbeat.envs.seeding import env_generators, pack_generator, unpack_generator
from offbeat.errors import UserError
from offbeat.types import LEGAL, OBSERVATION, ActionSpec, ArrayDict, ArraySpec, EnvSpec, EnvStep

PLAYERS = 2
EXTRA = 'pip install "offbeat[hanabi]"'


@dataclass(frozen=True)
class Rules:
    """The size of a game, under OpenSpiel's names."""

    colors: int
    ranks: int
    hand_size: int
    max_information_tokens: int
    max_life_tokens: int

    @property
    def best_score(self) -> int:
        """Every firework complete."""
        return self.colors * self.ranks

    @property
    def num_actions(self) -> int:
        """Discard or play each card, hint each colour and rank, and the extra action that does nothing."""
        return 2 * self.hand_size + self.colors + self.ranks + 1


GAMES = {
    "full": Rules(colors=5, ranks=5, hand_size=5, max_information_tokens=8, max_life_tokens=3),
    "small": Rules(colors=2, ranks=5, hand_size=2, max_information_tokens=3, max_life_tokens=1),
    "very-small": Rules(colors=1, ranks=5, hand_size=2, max_information_tokens=3, max_life_tokens=1),
}
RANDOM_SCORES = {"full": 0.0, "small": 0.0, "very-small": 0.03}
"""Mean of 20,000 games of random legal moves each: they end with the last life, and then nothing counts."""


def find_game(env_id: str) -> str | None:
    """The game of ``hanabi/very-small``, ``Hanabi/VerySmall``; or None."""
    plain = "".join(letter for letter in env_id.split("/", 1)[1].lower() if letter.isalpha())
    return next((game for game in GAMES if game.replace("-", "") == plain), None)


def hanabi_spec(config: EnvConfig, game: str) -> EnvSpec:
    """The spec of ``game``. EnvUnavailable if OpenSpiel is missing."""
    reject_unused(config, ("max_steps",))
    rules = GAMES[game]
    size = _load(config.id, rules).observation_tensor_shape()[0]
    return EnvSpec(
        id=config.id,
        observation={
            OBSERVATION: ArraySpec((size,), "uint8", 0.0, 1.0),
            LEGAL: ArraySpec((rules.num_actions,), "bool"),
        },
        action=ActionSpec("discrete", rules.num_actions),
        max_episode_steps=config.max_steps or None,
        players=PLAYERS,
        random_score=RANDOM_SCORES[game],
        reference_score=float(rules.best_score),
    )


class _Game:
    """One game: OpenSpiel's state, the generator that shuffles, and the clock."""

    def __init__(self, loaded: Any, generator: np.random.Generator, max_steps: int) -> None:
        self._loaded, self._max_steps = loaded, max_steps
        self.generator = generator
        self.state = loaded.new_initial_state()
        self.turns, self.ended = 0, True
        self.last_move = ""

    def start(self) -> None:
        """Deal a new game."""
        self.state = self._loaded.new_initial_state()
        self.turns, self.ended, self.last_move = 0, False, ""
        self._deal()

    def act(self, move: int) -> tuple[float, bool, bool]:
        """(score gained, terminated, truncated) of a legal move of the player on turn."""
        before = self.state.returns()[0]
        self._move(move)
        self._deal()
        self.turns += 1
        over = self.state.is_terminal()
        cut = not over and 0 < self._max_steps <= self.turns
        self.ended = over or cut
        return self.state.returns()[0] - before, over, cut

    def replay(self, history: Sequence[int], turns: int, ended: bool) -> None:
        """Play cards and moves again from the start."""
        self.state = self._loaded.new_initial_state()
        self.last_move = ""
        for action in history:
            self._move(action)
        self.turns, self.ended = turns, ended

    def text(self) -> str:
        """The whole game, hidden cards too, for people."""
        head = f"Turn {self.turns}, score {self.state.returns()[0]:g}{', over' if self.ended else ''}"
        return "\n".join([head, self.last_move, str(self.state)])

    def _move(self, action: int) -> None:
        """A card drawn, or a move made."""
        if not self.state.is_chance_node():
            player = self.state.current_player()
            self.last_move = f"Player {player + 1}: {self.state.action_to_string(player, action).strip('()')}"
        self.state.apply_action(action)

    def _deal(self) -> None:
        """Draw cards until a player has to choose; each copy left in the deck is as likely as any other."""
        while self.state.is_chance_node():
            cards, chances = zip(*self.state.chance_outcomes())
            upto = list(accumulate(chances))
            drawn = int(np.searchsorted(upto, self.generator.random() * upto[-1], side="right"))
            self.state.apply_action(cards[min(drawn, len(cards) - 1)])


class HanabiVector:
    """``num_envs`` / 2 games, two environments each, as a ``VectorEnv``; cards follow from the seed.

    Observations are OpenSpiel's, which are those of the Hanabi Learning Environment: the other player's cards, the
    board, discards, the last move and what hints told of either hand; never one's own cards.
    """

    def __init__(self, config: EnvConfig, name: str, num_envs: int) -> None:
        if num_envs % PLAYERS:
            raise UserError(
                f"{config.id} has {PLAYERS} players, and each is an environment; got {num_envs} environments, use a "
                f"multiple of {PLAYERS} (actor.envs_per_worker, evaluation.envs and evaluation.episodes)"
            )
        self.spec = hanabi_spec(config, name)  # first, because it says how to install OpenSpiel
        from open_spiel.python.observation import make_observation

        self._config, self._rules = config, GAMES[name]
        self.num_envs = self.batch_size = num_envs
        self._loaded = _load(config.id, self._rules)
        self._view = make_observation(self._loaded)
        self._ids = np.arange(num_envs)
        self._games: list[_Game] = []
        self._legal = np.zeros((num_envs, self._rules.num_actions), bool)
        self._rows: EnvStep | None = None

    def reset(self, seed: int) -> None:
        """Deal all games; each shuffles with a generator of its own from ``seed``."""
        self._games = self._new_games(env_generators(seed, self.num_envs // PLAYERS))
        for game in self._games:
            game.start()
        outcome = np.zeros((4, len(self._games)))
        outcome[3] = 1
        self._rows = self._make_rows(outcome)

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to."""
        rows, self._rows = handed_out(self._rows), None
        return rows

    def send(self, action: np.ndarray) -> None:
        """One action of each player; ended games ignore theirs and are dealt anew. ValueError for an illegal one."""
        action = check_actions(action, self.spec.action, self.num_envs)
        self._check_legal(action)
        outcome = np.zeros((4, len(self._games)))  # reward, terminated, truncated, first
        for index, game in enumerate(self._games):
            if game.ended:
                game.start()
                outcome[3, index] = 1
            else:
                outcome[:3, index] = game.act(int(action[PLAYERS * index + game.state.current_player()]))
        self._rows = self._make_rows(outcome)

    def state(self) -> ArrayDict:
        """Cards dealt and moves made since the games' starts, clocks and generators."""
        histories = [game.state.history() for game in self._games]
        counts = np.array([len(history) for history in histories], np.int64)
        moves = np.zeros((len(histories), int(counts.max(initial=0))), np.int64)
        for index, history in enumerate(histories):
            moves[index, : counts[index]] = history
        return {
            "history": moves,
            "count": counts,
            "turns": np.array([game.turns for game in self._games], np.int64),
            "ended": np.array([game.ended for game in self._games], bool),
            "generator": np.stack([pack_generator(game.generator) for game in self._games]),
        }

    def load_state(self, state: ArrayDict) -> None:
        """Deal and play the saved games again; the next call must be ``send``."""
        self._games = self._new_games([unpack_generator(words) for words in state["generator"]])
        for index, game in enumerate(self._games):
            history = state["history"][index, : state["count"][index]].tolist()
            game.replay(history, int(state["turns"][index]), bool(state["ended"][index]))
        self._observe()
        self._rows = None

    def text(self) -> str:
        """The first game for people: what happened last, then the board, both hands and what hints told of them."""
        return self._games[0].text()

    def close(self) -> None:
        """Nothing to free."""

    def _new_games(self, generators: list[np.random.Generator]) -> list[_Game]:
        return [_Game(self._loaded, generator, self._config.max_steps) for generator in generators]

    def _check_legal(self, action: np.ndarray) -> None:
        ended = np.repeat([game.ended for game in self._games], PLAYERS)
        wrong = np.flatnonzero(~self._legal[self._ids, action] & ~ended)
        if len(wrong):
            env = int(wrong[0])
            waits = env % PLAYERS != self._games[env // PLAYERS].state.current_player()
            raise ValueError(
                f"environment {env} of {self.spec.id} took the illegal action {int(action[env])}; legal are "
                f"{np.flatnonzero(self._legal[env]).tolist()}{' (its player is not on turn)' if waits else ''}; "
                f"choose where observation[{LEGAL!r}] is True"
            )

    def _observe(self) -> ArrayDict:
        """What each player sees, and may do."""
        size = self.spec.observation[OBSERVATION].shape[0]
        seen = np.zeros((self.num_envs, size), np.uint8)
        self._legal = np.zeros_like(self._legal)
        for index, game in enumerate(self._games):
            for player in range(PLAYERS):
                row = PLAYERS * index + player
                self._view.set_from(game.state, player)
                seen[row] = self._view.tensor
                on_turn = game.state.current_player() == player  # a game that was cut could go on, and bootstraps
                self._legal[row, game.state.legal_actions() if on_turn else -1] = True
        return {OBSERVATION: seen, LEGAL: self._legal.copy()}

    def _make_rows(self, outcome: np.ndarray) -> EnvStep:
        outcome = np.repeat(outcome, PLAYERS, axis=1)
        return make_rows(self._config, self._observe(), outcome[0], *(outcome[1:] > 0))


def _load(env_id: str, rules: Rules) -> Any:
    """OpenSpiel's game of these rules."""
    try:
        import pyspiel
    except ImportError as error:
        raise EnvUnavailable(f"{env_id} needs OpenSpiel, which is not installed; {EXTRA}") from error
    return pyspiel.load_game("hanabi", {"players": PLAYERS, **asdict(rules)})
