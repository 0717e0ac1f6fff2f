"""What ``offbeat envs`` lists."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

from offbeat.envs import atari_games, dmlab, envpool, faulty, hanabi, minatar, popgym, procgen, toy, vizdoom
from offbeat.envs.atari_actions import ACTIONS
from offbeat.envs.base import EnvConfig
from offbeat.envs.counting import NUM_ACTIONS
from offbeat.envs.gameboy import games as gameboy
from offbeat.envs.registry import own_entry_points, plain_gymnasium
from offbeat.envs.toy_games import GAMES


@dataclass(frozen=True)
class EnvListing:
    """One line of ``offbeat envs``."""

    id: str
    kind: str
    """``atari``, ``toy``, ``minatar``, ``hanabi``, ``procgen``, ``envpool``, ``vizdoom``, ``gameboy``, ``dmlab``,
    ``popgym``, ``gymnasium`` or ``entry point``."""
    extra: str
    """The extra of offbeat that brings it; empty: none needed."""
    actions: str
    """Number of discrete actions (Atari: of the minimal set), ``box(n)`` if continuous, empty if unknown without it."""
    note: str


def list_envs(text: str = "") -> list[EnvListing]:
    """Every environment that has a name here, installed or not, and whose name holds ``text`` in any case.

    Those of Gymnasium are named only if there is a ``text``.
    """
    return [record for record in _all_envs(bool(text)) if text.lower() in record.id.lower()]


def _all_envs(named: bool) -> list[EnvListing]:
    """``named``: with the ids of Gymnasium."""
    records = []
    for game in atari_games.game_names():
        count = ACTIONS.get(game) or len(atari_games.action_ids(game, full=False))
        records.append(EnvListing(game, "atari", "atari", str(count), "or all 18 with full_action_space"))
    if not records:
        records.append(EnvListing("<Game>, ALE/<Game>-v5", "atari", "atari", "", f"not installed: {atari_games.EXTRA}"))
    records.append(EnvListing("toy/counting", "toy", "", str(NUM_ACTIONS), "every row predictable, for tests"))
    for name, (_, note) in GAMES.items():
        action = toy.toy_spec(EnvConfig(id=f"toy/{name}")).action
        actions = str(action.num_actions) if action.kind == "discrete" else f"box({action.shape[0]})"
        records.append(EnvListing(f"toy/{name}", "toy", "", actions, note))
    records += [EnvListing(f"toy/{name}@N", "toy", "", str(NUM_ACTIONS), note) for name, note in faulty.FAULTS.items()]
    for game, count in minatar.MINIMAL_ACTIONS.items():
        records.append(EnvListing(f"minatar/{game}", "minatar", "minatar", str(count), "all 6 with full_action_space"))
    for game, rules in hanabi.GAMES.items():
        note = f"two players, an environment each; best {rules.best_score}"
        records.append(EnvListing(f"hanabi/{game}", "hanabi", "hanabi", str(rules.num_actions), note))
    for game in procgen.GAMES:
        modes = ", ".join(mode for mode, games in procgen.MODES.items() if game in games)
        records.append(EnvListing(f"procgen:procgen-{game}-v0", "procgen", "envpool", "15", f"modes {modes}"))
    note = f"any task of EnvPool's but Atari, such as {', '.join(envpool.SUCH_AS)}"
    records.append(EnvListing(f"{envpool.PREFIX}<task>", "envpool", "envpool", "", note))
    for name, scenario in vizdoom.SCENARIOS.items():
        records.append(EnvListing(f"vizdoom/{name}", "vizdoom", "vizdoom", str(1 + scenario.buttons), scenario.note))
    for name, task in gameboy.GAMES.items():
        records.append(EnvListing(f"gameboy/{name}", "gameboy", "gameboy", str(len(gameboy.ACTIONS)), task.note))
    for name, level in dmlab.LEVELS.items():
        note = f"needs deepmind_lab, built from source; level {level}"
        records.append(EnvListing(f"dmlab/{name}", "dmlab", "", str(len(dmlab.ACTIONS)), note))
    records += [EnvListing(f"popgym-{name}-v0", "popgym", "popgym", "", note) for name, note in popgym.TIERS.items()]
    records += [EnvListing(name, "entry point", "", "", point.value) for name, point in own_entry_points().items()]
    if not named:
        return [*records, EnvListing("<any Gymnasium id>", "gymnasium", "", "", "for instance CartPole-v1")]
    listed = {record.id for record in records}
    plain = [env_id for env_id in sorted(gymnasium.registry) if plain_gymnasium(env_id) and env_id not in listed]
    return [*records, *(EnvListing(env_id, "gymnasium", "", "", "") for env_id in plain)]
