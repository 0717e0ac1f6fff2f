"""Vector environments of Gymnasium (``make_vec``, ``SyncVectorEnv``, ``AsyncVectorEnv``, custom ones) as they are."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from offbeat.envs.base import EnvConfig, Misbehaved
from offbeat.envs.manners import Batches, check_spaces, spaces_of
from offbeat.envs.rows import check_actions, handed_out, make_rows, reject_unused
from offbeat.envs.spaces import (
    Translator,
    action_decoder,
    action_spec,
    flatten_space,
    has_mask,
    read_mask,
    refuse_late_mask,
    with_mask,
)
from offbeat.envs.vector_state import packed, unpack
from offbeat.envs.views import Views
from offbeat.errors import told
from offbeat.types import LEGAL, ActionSpec, ArrayDict, ArraySpec, EnvSpec, EnvStep, under

USED = ("channels",)
"""Switches that mean something to them."""
SPACES = ("single_observation_space", "single_action_space")
"""What they call the spaces of one of them."""


class GymnasiumVectorEnv:
    """A ``gymnasium.vector.VectorEnv`` as a ``VectorEnv``: whole batches, without a copy that a view would do.

    Rows are the same whichever way it resets. In ``AutoresetMode.NEXT_STEP``, Gymnasium's default, it does so as rows
    have it. In ``SAME_STEP`` and ``DISABLED`` an environment that has ended cannot wait for the row of its final
    observation to be acted on while the others go on: it is stepped along once, with any action, and started anew by
    ``reset(options={"reset_mask": ...})``, so that nobody sees that step. Later episodes follow from the first seed
    alone if the environment's generators do. ``state`` is its attributes, where they are what can be kept.
    """

    def __init__(self, config: EnvConfig, env: gymnasium.vector.VectorEnv[Any, Any, Any], limit: int = 0) -> None:
        """Take over ``env``. ValueError where its spaces are not supported, ``Misbehaved`` where it cannot be reset.

        ``limit``: agent steps after which its episodes should end by themselves; ``Misbehaved`` once one does not. 0:
        none is known.
        """
        reject_unused(config, USED)
        self._env, self._config, self._made, self._limit = env, config, spaces_of(env, SPACES), limit
        self._mode = _mode(env, config.id)
        self.num_envs = self.batch_size = env.num_envs
        action = action_spec(env.single_action_space, config.id)
        self._leaves = with_mask(flatten_space(env.single_observation_space, config.id, config.channels), action)
        self._decode, self._views = action_decoder(env.single_action_space), Views(env, env.num_envs)
        self._batches = Batches(env, env.num_envs, config.id)
        self._over, self._steps = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, np.int64)
        self._rows: EnvStep | None = None
        seen, info = self._batches.reset(seed=0)
        check_spaces(env, self._made, config.id)
        Views(count=self.num_envs).read(self._leaves, seen)
        self._told = LEGAL not in self._leaves and has_mask(info, action, self.num_envs)
        observation = {key: leaf.spec for key, leaf in self._leaves.items()}
        registered = getattr(env.spec, "max_episode_steps", None)
        self.spec = EnvSpec(
            id=config.id,
            observation=observation | ({LEGAL: ArraySpec((sum(action.choices),), "bool")} if self._told else {}),
            action=action,
            max_episode_steps=limit or registered,
        )
        self._legal = np.ones((self.num_envs, sum(action.choices)), bool)
        """What ended environments may do in the step that nobody sees."""
        if self._mode is not AutoresetMode.NEXT_STEP and self.num_envs > 1:
            self._try_masked_reset()

    def translator(self) -> Translator:
        """Between the spaces of one of its environments and what ``spec`` says."""
        env = self._env
        return Translator(self._leaves, env.single_observation_space, env.single_action_space)

    def reset(self, seed: int) -> None:
        """Start all episodes."""
        observation, info = self._batches.reset(seed=seed % 2**31)
        check_spaces(self._env, self._made, self._config.id)
        self._over[:], self._steps[:] = False, 0
        zeros = np.zeros(self.num_envs)
        flags = zeros > 0, zeros > 0, np.ones(self.num_envs, bool)
        self._rows = make_rows(self._config, self._seen(observation, info), zeros, *flags)

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to."""
        rows, self._rows = handed_out(self._rows), None
        return rows

    def send(self, action: np.ndarray) -> None:
        """Take one action in each environment; ended ones ignore it and start anew."""
        chosen, first = check_actions(action, self.spec.action, self.num_envs), self._over
        again = self._mode is not AutoresetMode.NEXT_STEP and bool(first.any())
        if again:
            chosen = self._beside(chosen, first)
        observation, reward, terminated, truncated, info = self._batches.step(self._decode(chosen))
        going = ~first
        terminated, truncated = terminated & going, truncated & going
        over = terminated | truncated
        seen = self._seen(observation, info)
        if again:
            self._start(seen, first)
        if self._mode is AutoresetMode.SAME_STEP and over.any():
            self._finish(seen, info, over)
        if self._limit:
            self._count(first, over)
        self._over = over
        reward = np.where(first, 0.0, reward)
        self._rows = make_rows(self._config, seen, reward, terminated, truncated & ~terminated, first)

    def _seen(self, observation: Any, info: dict[str, Any]) -> ArrayDict:
        """What all of them show, and which actions may be taken."""
        seen = self._views.read(self._leaves, observation)
        if self._told:
            seen[LEGAL] = read_mask(info, (self.num_envs, *self.spec.observation[LEGAL].shape), self._config.id)
        elif LEGAL not in seen:
            refuse_late_mask(info, self.spec.action, self._config.id, self.num_envs)
        return seen

    def _beside(self, chosen: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """Actions that are legal in the step in which those that have ``ended`` go along."""
        if self._mode is AutoresetMode.DISABLED:
            self._legal = self._seen(*self._reset(ended)).get(LEGAL, self._legal)
        return np.where(
            ended.reshape(-1, *[1] * (chosen.ndim - 1)), _any(self.spec.action, self._legal, chosen), chosen
        )

    def _start(self, seen: ArrayDict, first: np.ndarray) -> None:
        """New episodes for ``first``, among what all are ``seen`` to show. ``Misbehaved`` if others start anew, too."""
        for key, fresh in self._seen(*self._reset(first)).items():
            if key != LEGAL and not np.array_equal(fresh[~first], seen[key][~first], equal_nan=fresh.dtype.kind == "f"):
                raise self._unmasked("it reset others as well")
            seen[key] = np.where(first.reshape(-1, *[1] * (fresh.ndim - 1)), fresh, seen[key])

    def _finish(self, seen: ArrayDict, info: dict[str, Any], over: np.ndarray) -> None:
        """Put final observations in the place of those of the next episodes, which began in the same step."""
        final = info.get("final_obs")
        if final is None:
            raise Misbehaved(f"{self._config.id} resets in the step of an end, and gives no info['final_obs'] then")
        if LEGAL in seen:
            self._legal = seen[LEGAL].copy()
        each = isinstance(final, np.ndarray) and final.dtype == object
        for key, leaf in self._leaves.items():
            seen[key] = seen[key].copy()
            if each:
                for index in np.flatnonzero(over):
                    seen[key][index] = leaf.read(final[index])
            else:
                seen[key][over] = leaf.encode(self._views.checked(leaf, leaf.pick(final)), 1)[over]
        if self._told:  # nobody acts on them
            seen[LEGAL][over] = True

    def _count(self, first: np.ndarray, over: np.ndarray) -> None:
        """Count the steps of episodes. ``Misbehaved`` for one that goes on after its limit."""
        self._steps = np.where(first, 0, self._steps + 1)
        if ((self._steps >= self._limit) & ~over).any():
            raise Misbehaved(
                f"{self._config.id}: its vector environment goes on after {self._limit} steps, where its single ones "
                "are truncated; env.vectorised = 'no' steps those"
            )

    def _reset(self, which: np.ndarray) -> tuple[Any, dict[str, Any]]:
        """What resetting some of them gives. ``Misbehaved`` where that cannot be done."""
        try:
            return self._batches.reset(options={"reset_mask": which.copy()})
        except Misbehaved as error:
            raise self._unmasked(str(error)) from error
        except Exception as error:  # of the environment, of any class
            raise self._unmasked(f"it raised {told(error)}") from error

    def _try_masked_reset(self) -> None:
        """``Misbehaved`` where single environments cannot be reset."""
        action = _any(self.spec.action, self._legal, self.spec.action.array.zeros(self.num_envs))
        seen = self._seen(*self._batches.reset(seed=0))
        if LEGAL in seen:
            action = _any(self.spec.action, seen[LEGAL], action)
        observation, _, _, _, info = self._batches.step(self._decode(action))
        self._start(self._seen(observation, info), np.arange(self.num_envs) == 0)

    def _unmasked(self, why: str) -> Misbehaved:
        return Misbehaved(
            f"{self._config.id} resets its environments in mode {self._mode.name}, in which offbeat restarts single "
            f"ones by reset(options={{'reset_mask': bool[{self.num_envs}]}}), but {why}; make it with "
            "autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP"
        )

    def state(self) -> ArrayDict:
        """Its attributes. ``StateUnsupported`` where one of them is more than arrays, numbers and generators."""
        kept = {f"env/{name}": value for name, value in packed(self._env, self._config.id).items()}
        return kept | {"over": self._over.copy(), "steps": self._steps.copy(), "legal": self._legal.copy()}

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``; the next call must be ``send``."""
        unpack(self._env, under(state, "env/"))
        self._over, self._steps, self._legal = (state[name].copy() for name in ("over", "steps", "legal"))
        self._rows = None

    @property
    def made(self) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """Gymnasium's own, as it was handed over."""
        return self._env

    def close(self) -> None:
        """Close it; harmless when called twice."""
        self._env.close()


def _mode(env: gymnasium.vector.VectorEnv[Any, Any, Any], env_id: str) -> AutoresetMode:
    """How it resets. ``Misbehaved`` for what is no mode."""
    given = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    try:
        return AutoresetMode(given)
    except ValueError:
        raise Misbehaved(
            f"{env_id}: metadata['autoreset_mode'] is {given!r}; allowed are {', '.join(map(str, AutoresetMode))}"
        ) from None


def _any(spec: ActionSpec, legal: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Actions shaped as ``like``: of discrete ones the first that is ``legal`` [n, A], else those given."""
    if not spec.choices:
        return like
    parts = np.split(legal, np.cumsum(spec.choices)[:-1], -1)
    first = np.stack([part.argmax(-1) for part in parts], -1)
    return first[:, 0] if spec.kind == "discrete" else first
