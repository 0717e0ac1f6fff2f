"""From an id to an environment: Atari, ``toy/``, those of ``FAMILIES``, entry points, Gymnasium."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import gymnasium

from offbeat.envs import atari, atari_games, dmlab, envpool, faulty, hanabi, minatar, popgym, procgen, toy, vizdoom
from offbeat.envs import gymnasium as gym_envs
from offbeat.envs import vectorised as at_once
from offbeat.envs.base import EnvConfig, EnvUnavailable, VectorEnv
from offbeat.envs.closing import close_env, closed_on_failure, warn
from offbeat.envs.decisions import delayed_spec
from offbeat.envs.delay import DelayedVector, undelayed
from offbeat.envs.factories import Factory, batch_of, checked_batch, checked_single, makes_one_env
from offbeat.envs.families import FAMILIES
from offbeat.envs.game_lists import configs_of, joined_spec
from offbeat.envs.gameboy import games as gameboy
from offbeat.envs.gameboy import world
from offbeat.envs.module_ids import refused, registered_by
from offbeat.envs.rows import check_config
from offbeat.envs.several import AtOnceVector, InTurnVector, Place
from offbeat.envs.spaces import Translator
from offbeat.envs.toy_games import GAMES
from offbeat.envs.vector import GymnasiumVectorEnv
from offbeat.envs.vector_state import check_saved
from offbeat.errors import load_entry_point
from offbeat.types import EnvSpec

ENTRY_POINTS = "offbeat.envs"
"""Entry-point group of callables ``(config, num_envs, *, batch_size, threads, deterministic) -> VectorEnv``."""

ALONE = Place()
"""There are no others."""


def make_env(
    config: EnvConfig,
    num_envs: int,
    *,
    batch_size: int | None = None,
    threads: int = 1,
    deterministic: bool = False,
    factory: Factory | None = None,
    beat: Callable[[], object] = lambda: None,
    place: Place = ALONE,
) -> VectorEnv:
    """``num_envs`` environments of ``config.id``, or of the games of ``config.ids``.

    ``batch_size`` rows per ``recv`` (fewer than ``num_envs`` only where the backend steps part of them); ``threads``
    native threads; ``deterministic`` asks for environments that can be saved exactly. ``factory`` is a user's own: it
    takes no argument and gives one ``gymnasium.Env``, or it takes ``num_envs`` or (config, num_envs, batch_size=,
    threads=, deterministic=) and gives a ``VectorEnv`` or one of Gymnasium's (of games of several players it has an
    attribute ``players``). ``beat`` is called before each single one is made or starts an episode. ``place``: where
    they stand among all of a run, which decides what they play of a list. Raises ``EnvUnavailable``,
    ``StateUnsupported`` or ValueError.
    """
    check_config(config)
    if num_envs < 1 or not 1 <= (batch_size or num_envs) <= num_envs:
        raise ValueError(f"batch_size={batch_size} of num_envs={num_envs} ; need 1 <= batch_size <= num_envs")
    options: dict[str, Any] = {"batch_size": batch_size, "threads": threads, "deterministic": deterministic}
    if config.delay.active:
        if (batch_size or num_envs) != num_envs:
            raise ValueError(f"environments with a delay step all {num_envs} at once, got batch_size={batch_size}")
        one = partial(make_env, undelayed(config), 1, **options | {"batch_size": None}, factory=factory, beat=beat)
        places = (place.one(index, num_envs) for index in range(num_envs))
        return DelayedVector(config.delay, num_envs, lambda: one(place=next(places)), config.id)
    if config.ids:
        return _make_list(config, num_envs, options, factory, beat, place)
    kind, name, factory = _found(config.id, factory)
    if factory is not None and not makes_one_env(factory):
        made = batch_of(factory, config, num_envs, **options)
        with closed_on_failure([made] if hasattr(made, "close") else [], config.id):
            return checked_batch(made, config, num_envs)
    if kind == "atari":
        return atari.make_atari(config, name, num_envs, batch_size, threads, deterministic)
    if kind == "procgen":
        return procgen.make_procgen(config, name, num_envs, batch_size, threads, deterministic)
    if kind == "envpool":
        return envpool.make_envpool(config, name, num_envs, batch_size, threads, deterministic)
    if (batch_size or num_envs) != num_envs:
        raise ValueError(f"{config.id} steps all {num_envs} environments at once, got batch_size={batch_size}")
    if kind == "hanabi":
        return hanabi.HanabiVector(config, name, num_envs)
    if kind == "toy":
        return faulty.make_faulty(config, num_envs) if faulty.is_faulty(name) else toy.ToyVector(config, num_envs)
    make, used = _single_maker(kind, name, config, factory)
    if many := at_once.make_vectorised(config, at_once.id_of(kind, name, factory), num_envs, make, deterministic):
        return many
    return gym_envs.GymnasiumVector(config, num_envs, make, used, replayable=deterministic, beat=beat)


def _make_list(
    config: EnvConfig,
    num_envs: int,
    options: dict[str, Any],
    factory: Factory | None,
    beat: Callable[[], object],
    place: Place,
) -> VectorEnv:
    """Environments of a list of games."""
    if (options["batch_size"] or num_envs) != num_envs:
        raise ValueError(
            f"{config.id} steps all {num_envs} environments at once, got batch_size={options['batch_size']}"
        )
    spec = _spec(config, factory)

    def make(game: EnvConfig, count: int) -> VectorEnv:
        return make_env(game, count, **options | {"batch_size": None}, beat=beat)

    if config.several == "at_once":
        return AtOnceVector(config, spec, num_envs, make, place)
    return InTurnVector(config, spec, num_envs, make, place, follow=not options["deterministic"])


def game_specs(config: EnvConfig) -> list[EnvSpec]:
    """The spec of each game of a list, without a delay."""
    return [env_spec(game) for game in configs_of(undelayed(config))]


def check_exact(config: EnvConfig, factory: Factory | None = None) -> None:
    """``StateUnsupported`` where ``config.id`` cannot be saved exactly: single ones are played twice, batches asked."""
    check_config(config)
    config = undelayed(config)
    if config.ids:
        for game in configs_of(config):
            check_exact(game)
        return
    kind, name, factory = _found(config.id, factory)
    batches = factory is not None and not makes_one_env(factory)
    if kind in ("procgen", "envpool") or batches or config.vectorised == "yes":
        with gym_envs.looked_at(config.id) as keep:
            envs = keep(make_env(config, getattr(factory, "players", 1), deterministic=True, factory=factory))
            envs.reset(0)
            envs.recv()
            envs.state()
            if isinstance(envs, GymnasiumVectorEnv):
                check_saved(config.id, lambda: keep(make_env(config, 2, deterministic=True, factory=factory)))
    elif kind not in ("atari", "hanabi", "toy"):  # those are exact, or refuse to be made
        make, used = _single_maker(kind, name, config, factory)
        gym_envs.check_replayable(config, make, used=used)


def stepping(config: EnvConfig, num_envs: int, deterministic: bool, factory: Factory | None = None) -> str:
    """A line on how so many copies of an id that has a vector entry point are stepped; empty for others, and with a
    delay. ``Misbehaved`` where ``config`` insists on a vector entry point that cannot be taken.
    """
    if config.delay.active:  # each of them is made by itself
        stepping(undelayed(config), 1, deterministic, factory)
        return ""
    kind, name, factory = _found(config.id, factory)
    env_id = at_once.id_of(kind, name, factory)
    if not at_once.has_entry_point(env_id):
        return ""
    make = _gymnasium_maker(name) if factory is None else checked_single(factory)
    return at_once.said(config, env_id, num_envs, deterministic, make)


def translator(config: EnvConfig, factory: Factory | None = None) -> Translator | None:
    """Between the spaces of a Gymnasium environment and what ``env_spec`` says; None for environments without any, for
    lists, and where a history of actions, which no space of the environment holds, is shown.
    """
    check_config(config)
    if config.delay.history or config.ids:
        return None
    config = undelayed(config)
    kind, name, factory = _found(config.id, factory)
    if factory is not None and not makes_one_env(factory):
        with gym_envs.looked_at(config.id) as keep:
            many = keep(make_env(config, getattr(factory, "players", 1), factory=factory))
            return many.translator() if isinstance(many, GymnasiumVectorEnv) else None
    if kind != "gymnasium" and factory is None:
        return None
    make, used = _single_maker(kind, name, config, factory)
    with gym_envs.looked_at(config.id) as keep:
        env = keep(make())
        return Translator(gym_envs.leaves_of(env, config, used), env.observation_space, env.action_space)


_kept: ContextVar[dict[tuple[EnvConfig, Factory | None], EnvSpec] | None] = ContextVar("kept specs", default=None)


@contextmanager
def specs_kept() -> Iterator[None]:
    """Meanwhile ``env_spec`` makes an environment once for each configuration: some take half a minute."""
    outer = _kept.get()
    token = _kept.set({} if outer is None else outer)
    try:
        yield
    finally:
        _kept.reset(token)


def env_spec(config: EnvConfig, factory: Factory | None = None) -> EnvSpec:
    """The spec of what ``make_env`` would give, without a batch or a step (where need be, from one environment)."""
    kept, key = _kept.get(), (config, factory)
    try:
        hash(key)
    except TypeError:  # a factory that has no hash
        kept = None
    if kept is None:
        return _spec(config, factory)
    if key not in kept:
        kept[key] = _spec(config, factory)
    return kept[key]


def _spec(config: EnvConfig, factory: Factory | None) -> EnvSpec:
    check_config(config)
    if config.delay.active:
        return delayed_spec(_spec(undelayed(config), factory), config.delay)
    if config.ids:
        if factory is not None:
            raise ValueError(f"a list of games, {config.id}, is of ids; it cannot have an environment of your own")
        return joined_spec(config, game_specs(config))
    kind, name, factory = _found(config.id, factory)
    if kind == "atari":
        return atari.atari_spec(config, name)
    if kind == "toy":
        return toy.toy_spec(faulty.healthy(config)) if faulty.is_faulty(name) else toy.toy_spec(config)
    if kind == "hanabi":
        return hanabi.hanabi_spec(config, name)
    if kind == "procgen":
        return procgen.procgen_spec(config, name)
    if kind == "envpool":
        return envpool.envpool_spec(config, name)
    if factory is not None and not makes_one_env(factory):
        with gym_envs.looked_at(config.id) as keep:
            return keep(make_env(config, getattr(factory, "players", 1), factory=factory)).spec
    make, used = _single_maker(kind, name, config, factory)
    with gym_envs.looked_at(config.id) as keep:
        return gym_envs.gymnasium_spec(config, keep(make()), used)


def frame_rate(config: EnvConfig, factory: Factory | None = None) -> float | None:
    """Steps per second at which the environment's world goes: of Atari and DMLab 60 frames, of ViZDoom 35, of the
    Game Boy 59.7, of a Gymnasium environment what its ``metadata`` gives as ``render_fps``; None for those that name
    none.
    """
    check_config(config)
    config = undelayed(config)
    if config.ids:
        return frame_rate(configs_of(config)[0])
    kind, name, factory = _found(config.id, factory)
    frames_per_s = {
        "atari": atari_games.FRAMES_PER_S, "dmlab": dmlab.FRAMES_PER_S, "vizdoom": vizdoom.TICS_PER_S,
        "gameboy": gameboy.FRAMES_PER_S,
    }  # fmt: skip
    if kind in frames_per_s:
        return frames_per_s[kind] / config.frame_skip
    if kind != "gymnasium" and (factory is None or not makes_one_env(factory)):
        return None
    make, _ = _single_maker(kind, name, config, factory)
    with gym_envs.looked_at(config.id) as keep:
        found = keep(make()).metadata.get("render_fps")
    return float(found) if isinstance(found, int | float) and found > 0 else None


def single_factory(env_id: str) -> Factory | None:
    """What makes environments of an id of Gymnasium, or is an entry point; None for those that offbeat makes itself."""
    kind, name = _resolve(env_id)
    if kind == "entry point":
        found: Factory = own_entry_points()[name].load()
        return found
    return _gymnasium_maker(name) if kind == "gymnasium" else None


def exists(env_id: str) -> bool:
    """Whether there is an environment of that id here. Nothing is imported that it names."""
    try:
        _resolve(env_id)
    except EnvUnavailable:
        return False
    return True


def _found(env_id: str, factory: Factory | None) -> tuple[str, str, Factory | None]:
    """(kind, name within the kind, factory) of an id: the factory is the user's own, that of an entry point, or None.

    Either makes the kind ``factory``.
    """
    kind, name = ("factory", "") if factory is not None else _resolve(env_id)
    if kind == "entry point":
        return "factory", "", load_entry_point("environment", own_entry_points()[name])
    return kind, name, factory


def _resolve(env_id: str) -> tuple[str, str]:
    """(kind, name within the kind) of an id, which may be from a file: nothing is imported that it names.

    EnvUnavailable with the nearest known names if there is none.
    """
    if env_id in own_entry_points():
        return "entry point", env_id
    if env_id.startswith("toy/"):
        name = env_id.removeprefix("toy/")
        if name == "counting" or name in GAMES or faulty.is_faulty(name):
            return "toy", name
        raise _unknown(env_id, [f"toy/{known}" for known in ("counting", *GAMES, *(f"{f}@500" for f in faulty.FAULTS))])
    family = next((known for prefix, known in FAMILIES.items() if env_id.lower().startswith(prefix)), None)
    if family is not None:
        game = family.find(env_id)
        if game is None:
            raise _unknown(env_id, [family.written.format(known) for known in family.games])
        return family.kind, game
    if ":" in env_id:
        raise refused(env_id)
    plain = plain_gymnasium(env_id)
    game = None if plain else atari_games.find_game(env_id)
    if game is not None:
        return "atari", game
    if not plain and atari_games.looks_like_atari(env_id):
        atari_games.ale_module()
        raise _unknown(env_id, list(atari_games.game_names()), atari_games.game_stem(env_id))
    if env_id in gymnasium.registry or _same_name_registered(env_id):
        return "gymnasium", env_id
    registered = [known for known in gymnasium.registry if plain_gymnasium(known)]
    raise _unknown(env_id, [*atari_games.game_names(), *registered, *(f"toy/{known}" for known in GAMES)])


def plain_gymnasium(env_id: str) -> bool:
    """Registered with Gymnasium by anyone but ale-py (``Blackjack-v1`` is also the name of a cartridge)."""
    found = gymnasium.registry.get(env_id)
    return found is not None and "ale_py" not in str(found.entry_point)


def _same_name_registered(env_id: str) -> bool:
    """Ids without their version (``CartPole``) are Gymnasium's newest version of it."""
    return any(known.rsplit("-v", 1)[0] == env_id and plain_gymnasium(known) for known in gymnasium.registry)


def _unknown(env_id: str, known: list[str], wanted: str = "") -> EnvUnavailable:
    lower = {name.lower(): name for name in known}
    near = [lower[name] for name in difflib.get_close_matches((wanted or env_id).lower(), lower, n=3, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    missing = "" if atari_games.game_names() else f"; Atari games need ale-py: {atari_games.EXTRA}"
    own = f"; {registered_by(env_id)}" if re.search(r"-v\d+$", env_id) and ":" not in env_id else ""
    return EnvUnavailable(f"no environment is called {env_id!r}{hint}{missing}; `offbeat envs` lists all{own}")


def own_entry_points() -> dict[str, EntryPoint]:
    """Environments that installed packages bring, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def registrations(*env_ids: str) -> dict[str, Any]:
    """What this program has registered with Gymnasium under these ids, for processes that have not."""
    return {env_id: gymnasium.registry[env_id] for env_id in env_ids if env_id in gymnasium.registry}


def register_again(found: Mapping[str, Any]) -> None:
    """Register what another process had under ids that are unknown here."""
    for env_id, spec in found.items():
        gymnasium.registry.setdefault(env_id, spec)


def _single_maker(
    kind: str, name: str, config: EnvConfig, factory: Factory | None
) -> tuple[gym_envs.MakeEnv, tuple[str, ...]]:
    """A function that makes one Gymnasium environment, and the switches that it understands."""
    if factory is not None:
        return checked_single(factory), at_once.switches_of(config, factory)
    if kind == "minatar":
        return minatar.maker(config, name), ("max_steps", "sticky", "full_action_space")
    if kind == "dmlab":
        return dmlab.maker(config, name), dmlab.USED
    if kind == "vizdoom":
        return vizdoom.maker(config, name), vizdoom.USED
    if kind == "gameboy":
        return world.maker(config, name), world.USED
    make = _gymnasium_maker(name)
    try:
        tried = make()
    except Exception as error:
        raise gym_envs.unavailable(name, error) from error
    warn(close_env(tried, name))
    at_once.check_asked_for(config, name)
    return make, at_once.SWITCHES


def _gymnasium_maker(name: str) -> gym_envs.MakeEnv:
    """A function that makes an id of Gymnasium. Only packages that offbeat knows are imported for one."""
    return popgym.maker(name) if popgym.find_game(name) else gym_envs.gymnasium_maker(name)
