"""Any Gymnasium environment: K of them in one process, restorable by replaying the actions of the current episode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from offbeat.envs.base import EnvConfig, EnvUnavailable, Misbehaved, StateUnsupported
from offbeat.envs.carrying import carried, carry
from offbeat.envs.closing import close_envs, closed_on_failure, warn
from offbeat.envs.manners import (
    Declared,
    check_copies,
    check_like,
    check_spaces,
    reset_env,
    spaces_of,
    step_env,
)
from offbeat.envs.rows import check_actions, handed_out, make_rows, reject_unused
from offbeat.envs.seeding import env_generators, pack_generator, unpack_generator
from offbeat.envs.spaces import (
    Leaf,
    action_decoder,
    action_spec,
    flatten,
    flatten_space,
    has_mask,
    read_mask,
    refuse_late_mask,
    with_mask,
)
from offbeat.errors import called
from offbeat.types import LEGAL, ActionSpec, ArrayDict, ArraySpec, EnvSpec, EnvStep

USED = ("max_steps", "channels")
"""Switches that mean something to every Gymnasium environment."""
MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]


def gymnasium_maker(env_id: str) -> MakeEnv:
    """A function that makes the registered environment ``env_id``."""
    return partial(gymnasium.make, env_id, disable_env_checker=True)


def gymnasium_spec(config: EnvConfig, env: gymnasium.Env[Any, Any], used: tuple[str, ...] = USED) -> EnvSpec:
    """The spec of ``env``; ValueError if its spaces are not supported. One that is not ours is reset once."""
    return _described(config, env, used)[0]


def _described(
    config: EnvConfig, env: gymnasium.Env[Any, Any], used: tuple[str, ...]
) -> tuple[EnvSpec, dict[str, Leaf], bool]:
    """Its spec, the leaves of its observations, and whether ``info`` holds a mask of actions."""
    reject_unused(config, used)
    registered = env.spec.max_episode_steps if env.spec is not None else None
    limits = [limit for limit in (registered, config.max_steps) if limit]
    made = spaces_of(env)
    action = action_spec(env.action_space, config.id)
    leaves = leaves_of(env, config, used)
    told = "channels" in used and _masks_in_info(config, env, leaves, action, made)
    observation = {key: leaf.spec for key, leaf in leaves.items()}
    spec = EnvSpec(
        id=config.id,
        observation=observation | ({LEGAL: ArraySpec((sum(action.choices),), "bool")} if told else {}),
        action=action,
        frame_skip=config.frame_skip if "frame_skip" in used else 1,
        max_episode_steps=min(limits) if limits else None,
        reference_score=env.spec.reward_threshold if env.spec is not None else None,
    )
    return spec, leaves, told


def leaves_of(env: gymnasium.Env[Any, Any], config: EnvConfig, used: tuple[str, ...] = USED) -> dict[str, Leaf]:
    """Key -> leaf of its observations, a mask of actions under offbeat's name."""
    leaves = flatten_space(env.observation_space, config.id, channels_of(config, used))
    return with_mask(leaves, action_spec(env.action_space, config.id))


def _masks_in_info(
    config: EnvConfig, env: gymnasium.Env[Any, Any], leaves: dict[str, Leaf], action: ActionSpec, made: Declared
) -> bool:
    """Whether ``reset`` gives a mask of discrete actions in ``info``, as Taxi does.

    Checks its observation too, and that the spaces stay as they were ``made``.
    """
    observation, info = reset_env(env, 0, config.id)
    check_spaces(env, made, config.id)
    flatten(leaves, observation)
    return LEGAL not in leaves and has_mask(info, action)


def channels_of(config: EnvConfig, used: tuple[str, ...]) -> str:
    """Which axis holds the channels; environments of ours have them in front."""
    return config.channels if "channels" in used else "first"


class _Slot:
    """One environment with its clock, and what is needed to play its episode again: the seed and the actions."""

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        made: Declared,
        leaves: dict[str, Leaf],
        max_steps: int,
        env_id: str,
        action: ActionSpec,
        told: bool,
    ) -> None:
        """``made``: the spaces that it was made with. ``told``: ``info`` holds a mask of actions."""
        self.env, self.leaves, self.max_steps, self.env_id = env, leaves, max_steps, env_id
        self._action, self._told, self._reads = action, told, told or LEGAL in leaves
        self.made, self.decode = made, action_decoder(made["action_space"])
        self.ended = True
        self.seed = 0
        self.actions: list[np.ndarray] = []
        self.steps = 0
        self.keeps = True
        """Whether the actions are kept, to play the episode again."""
        self.observation: ArrayDict = {}
        self.fresh = self.carried = carried(env)

    def start(self, seed: int) -> None:
        """A new episode; everything random in it follows from ``seed``, and from what the ones before have left."""
        self.carried = carried(self.env)
        given = reset_env(self.env, seed, self.env_id)
        check_spaces(self.env, self.made, self.env_id)
        self._look(*given)
        self.seed, self.actions, self.steps, self.ended = seed, [], 0, False

    def act(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """(reward, terminated, truncated)."""
        observation, reward, terminated, truncated, info = step_env(self.env, self.decode(action), self.env_id)
        self._look(observation, info)
        self.steps += 1
        if self.keeps:
            self.actions.append(action)
        truncated = truncated or 0 < self.max_steps <= self.steps
        self.ended = terminated or truncated
        return reward, terminated, truncated and not terminated

    def _look(self, observation: Any, info: dict[str, Any]) -> None:
        """Take in what is seen now, and which actions may be taken."""
        self.observation = flatten(self.leaves, observation)
        if self._told:
            self.observation[LEGAL] = read_mask(info, (sum(self._action.choices),), self.env_id)
        elif not self._reads:
            refuse_late_mask(info, self._action, self.env_id)


class GymnasiumVector:
    """K Gymnasium environments as a ``VectorEnv``, stepped one after the other in this process.

    Every episode starts with a fresh seed of our own, so an episode is a function of its seed and its actions:
    ``state`` keeps those, ``load_state`` plays them again and checks that the same observation comes out.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        make: MakeEnv,
        used: tuple[str, ...] = USED,
        *,
        replayable: bool = True,
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        """Make them one after the other.

        ``replayable``: the actions of running episodes are kept, for ``state``. ``beat``: called before each of them is
        made or starts an episode, which may take long.
        """
        self._config, self._beat, self._replayable = config, beat, replayable
        envs: list[gymnasium.Env[Any, Any]] = []
        with closed_on_failure(envs, config.id):
            for _ in range(num_envs):
                beat()
                envs.append(make())
            made = [spaces_of(env) for env in envs]
            check_copies(made, config.id)
            self.spec, leaves, told = _described(config, envs[0], used)
            _check_different(envs, config.id)
        self.num_envs = self.batch_size = num_envs
        alike = leaves, config.max_steps, config.id, self.spec.action, told
        self._slots = [_Slot(env, spaces, *alike) for env, spaces in zip(envs, made, strict=True)]
        self._keep(replayable)
        self._generators = env_generators(0, num_envs)
        self._rows: EnvStep | None = None
        drawn = envs[0].render if envs[0].render_mode == "rgb_array" else None
        self.render: Callable[[], Any] | None = drawn
        """The first one's picture, where it was made to draw."""

    def action_meanings(self) -> tuple[str, ...]:
        """What the first one calls its actions; () where it does not."""
        named = getattr(self._slots[0].env.unwrapped, "get_action_meanings", tuple)
        return tuple(map(str, named()))

    def keep_actions(self) -> None:
        """Keep the actions of episodes from now on, so that ``state`` may be asked for."""
        self._keep(True)

    def _keep(self, wanted: bool) -> None:
        self._replayable = wanted
        for slot in self._slots:
            slot.keeps = wanted

    def reset(self, seed: int) -> None:
        """Start all episodes; each environment gets a sequence of seeds of its own from ``seed``."""
        self._generators = env_generators(seed, self.num_envs)
        for index, slot in enumerate(self._slots):
            carry(slot.env, slot.fresh)
            self._start(index)
        outcome = np.zeros((4, self.num_envs))
        outcome[3] = 1
        self._rows = self._make_rows(outcome)

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to."""
        rows, self._rows = handed_out(self._rows), None
        return rows

    def send(self, action: np.ndarray) -> None:
        """Take one action in each environment; ended ones ignore it and start anew."""
        action = check_actions(action, self.spec.action, self.num_envs)
        outcome = np.zeros((4, self.num_envs))  # reward, terminated, truncated, first
        for index, slot in enumerate(self._slots):
            if slot.ended:
                self._start(index)
                outcome[3, index] = 1
            else:
                outcome[:3, index] = slot.act(action[index])
        self._rows = self._make_rows(outcome)

    def state(self) -> ArrayDict:
        """Seeds, actions since the episodes' starts, generators, and the observations that a replay must give."""
        if not self._replayable:
            raise StateUnsupported(f"{self._config.id} was not made to be saved: its actions were not kept")
        spec = self.spec.action.array
        counts = np.array([len(slot.actions) for slot in self._slots], np.int64)
        actions = spec.zeros(self.num_envs, int(counts.max()))
        for index, slot in enumerate(self._slots):
            if slot.actions:
                actions[index, : counts[index]] = slot.actions
        seen = {f"observation.{key}": self._stack(key) for key in self.spec.observation}
        left = [slot.carried for slot in self._slots if slot.carried is not None]
        if left:
            seen["carried"] = np.stack(left)
        return {
            "seed": np.array([slot.seed for slot in self._slots], np.int64),
            "actions": actions,
            "count": counts,
            "generator": np.stack([pack_generator(generator) for generator in self._generators]),
            **seen,
        }

    def load_state(self, state: ArrayDict) -> None:
        """Play the saved actions again. ``StateUnsupported`` if the saved observations do not come out."""
        self._generators = [unpack_generator(words) for words in state["generator"]]
        for index, slot in enumerate(self._slots):
            if "carried" in state:
                carry(slot.env, state["carried"][index])
            slot.start(int(state["seed"][index]))
            for action in state["actions"][index, : state["count"][index]]:
                slot.act(action)
            for key in self.spec.observation:
                if not np.array_equal(slot.observation[key], state[f"observation.{key}"][index], equal_nan=True):
                    raise _not_replayable(self._config.id, key)
        self._rows = None

    def close(self) -> None:
        """Close every environment, also where closing one raises."""
        slots, self._slots = self._slots, []
        with ExitStack() as closing:
            for slot in slots:
                closing.callback(slot.env.close)

    def _start(self, index: int) -> None:
        self._beat()
        self._slots[index].start(int(self._generators[index].integers(2**31 - 1)))

    def _stack(self, key: str) -> np.ndarray:
        return np.stack([slot.observation[key] for slot in self._slots])

    def _make_rows(self, outcome: np.ndarray) -> EnvStep:
        observation = {key: self._stack(key) for key in self.spec.observation}
        return make_rows(self._config, observation, outcome[0], *(outcome[1:] > 0))


def _check_different(envs: list[gymnasium.Env[Any, Any]], env_id: str) -> None:
    """Refuse a factory that gives the same environment again: its copies would step each other's episodes."""
    inner = [id(env.unwrapped) for env in envs]
    if len(set(inner)) < len(inner):
        raise Misbehaved(f"{env_id}: its factory gave the same environment twice; it must make a new one at each call")


def check_replayable(config: EnvConfig, make: MakeEnv, steps: int = 50, used: tuple[str, ...] = USED) -> None:
    """Play ``steps`` random actions twice from one seed; ``StateUnsupported`` if the rows differ.

    A run that must be resumable bit for bit asks this once, before it has a folder.
    """
    (spec, first), (again, second) = (_play(config, make, steps, used) for _ in range(2))
    check_like(again, spec, "the second one", "the first")
    for one, two in zip(first, second, strict=True):
        if not np.array_equal(one.raw_reward, two.raw_reward, equal_nan=True) or one.valid != two.valid:
            raise _not_replayable(config.id, "reward or end")
        for key in one.observation:
            if not np.array_equal(one.observation[key], two.observation[key], equal_nan=True):
                raise _not_replayable(config.id, key)


def _play(config: EnvConfig, make: MakeEnv, steps: int, used: tuple[str, ...]) -> tuple[EnvSpec, list[EnvStep]]:
    """The spec of one that is made for it, and its rows of ``steps`` random actions, always the same ones."""
    with looked_at(config.id) as keep:
        envs = keep(GymnasiumVector(config, 1, make, used))
        generator = np.random.Generator(np.random.PCG64(1))
        spec = envs.spec.action
        envs.reset(1)
        rows = [envs.recv()]
        for _ in range(steps):
            action = random_actions(spec, generator, 1, rows[-1].observation.get(LEGAL))
            envs.send(action)
            rows.append(envs.recv())
    return envs.spec, rows


def random_actions(
    spec: ActionSpec, generator: np.random.Generator, count: int, legal: np.ndarray | None = None
) -> np.ndarray:
    """Actions [count, ...], legal ones where a mask [count, A] says which are."""
    if not spec.choices:
        return generator.uniform(-1, 1, (count, *spec.shape)).astype(np.float32)
    masks = np.ones((count, sum(spec.choices)), bool) if legal is None else legal
    chosen = []
    for mask in masks:
        parts = np.split(mask, np.cumsum(spec.choices)[:-1])
        chosen.append([generator.choice(np.flatnonzero(part if part.any() else ~part)) for part in parts])
    drawn = np.array(chosen)
    return drawn[:, 0] if spec.kind == "discrete" else drawn


@contextmanager
def looked_at(env_id: str) -> Iterator[Callable[[Any], Any]]:
    """Close the environment that was made for a look at its spaces; what goes wrong then is a warning.

    The working directory is as before afterwards. A user's environment that ends the program while it is made is an
    error like any other.
    """
    made: list[Any] = []
    here = os.getcwd()

    def keep(env: Any) -> Any:
        made.append(env)
        return env

    try:
        yield keep
    except (SystemExit, GeneratorExit) as error:
        raise RuntimeError(f"{env_id} raised {error!r} while it was made") from error
    finally:
        os.chdir(here)
        warn(close_envs(made, env_id))


def unavailable(env_id: str, error: Exception) -> EnvUnavailable:
    """What Gymnasium said when it could not make ``env_id``, on one line."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return EnvUnavailable(f"Gymnasium cannot make {env_id}: {vector_alone(env_id) or reason}")


def vector_alone(env_id: str) -> str:
    """Why no single environment of an id is made that has a vector entry point alone, and what to do; empty for others.

    ``env_id`` may name a module, and leave out the version.
    """
    name = env_id.rpartition(":")[2]
    known = [spec for spec in gymnasium.registry.values() if name in (spec.id, spec.id.rsplit("-v", 1)[0])]
    found = [spec for spec in known if spec.entry_point is None and spec.vector_entry_point is not None]
    if not found or len(found) < len(known):
        return ""
    entry: Any = found[-1].vector_entry_point
    what = entry if isinstance(entry, str) else ":".join(called(entry).rsplit(".", 1))
    return (
        "it is registered with a vector_entry_point and no entry_point: register a single entry_point beside it, or "
        f"name its class, --env {what} on the command line, env_factory={what.rpartition(':')[2]} in Python"
    )


def _not_replayable(env_id: str, what: str) -> StateUnsupported:
    return StateUnsupported(
        f"{env_id} cannot be saved exactly: the same seed and actions did not give the same {what}; "
        "make it depend on its seed alone, or run without deterministic mode and resume with fresh episodes"
    )
