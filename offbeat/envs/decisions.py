"""One environment, frame by frame, and the rows of the decisions that act in it late.

``o_0`` is the observation at the reset; frame f leads from ``o_f`` to ``o_{f+1}``. A decision is made from ``o_s`` and
acts in frame e >= s, for that one frame; the default behaviour plays the others. Its row holds ``o_s`` and the action;
the reward of frames e to e' - 1, where e' is the next decision's frame, comes with the next row, whose ``elapsed`` is
e' - e. Who decides when is the caller's business: a simulated delay, or processes that are really late.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from offbeat.envs.base import VectorEnv
from offbeat.envs.default_behaviour import DefaultBehaviour
from offbeat.envs.delay_config import DelayConfig
from offbeat.types import LEGAL, ActionSpec, ArrayDict, ArraySpec, EnvSpec, EnvStep, under

NOW = "now_"
"""Keys of what there was when an action took effect begin so, in rows that show it."""
HISTORY = "action_history"
"""The key of the newest actions that were applied, in observations that show them."""


def delayed_spec(spec: EnvSpec, delay: DelayConfig) -> EnvSpec:
    """The spec of the decisions' rows: frame stacks joined, and the history of actions where it is asked for.

    The history is int64 [history] (times the components of an action), 0 where nothing was applied yet, a + 1 for
    action a; of continuous actions float32, zeros where there was none. ValueError for games of several players, and
    where both the environment and ``delay`` stack or ``noop_action`` is no action.
    """
    if spec.players > 1:
        raise ValueError(
            f"{spec.id} is a game of {spec.players} players, who wait for each other; only environments of one player "
            "can be delayed (leave [delay] alone)"
        )
    DefaultBehaviour(spec.action, delay.default, delay.noop_action, 0)  # refuses an action that is none
    if delay.stack > 1 and spec.frame_stack > 1 and spec.stacked:
        raise ValueError(
            f"{spec.id} shows stacks of {spec.frame_stack} frames already; set env.frame_stack or delay.stack to 1"
        )
    observation, depths = spec.network_observation, stack_depths(spec, delay)
    for key, depth in depths.items():
        part = spec.observation[key]
        observation[key] = replace(part, shape=(depth * part.shape[0], *part.shape[1:]))
    if delay.history:
        if HISTORY in observation:
            raise ValueError(f"{spec.id} shows a {HISTORY!r} of its own; set delay.history to 0")
        observation = observation | {HISTORY: _history_spec(spec.action, delay.history)}
    privileged: tuple[str, ...] = ()
    if delay.privileged:
        now = {f"{NOW}{key}": part for key, part in spec.network_observation.items()}
        observation, privileged = observation | now, tuple(now)
    return replace(spec, observation=observation, frame_stack=1, stacked=(), privileged=privileged)


def stack_depths(spec: EnvSpec, delay: DelayConfig) -> dict[str, int]:
    """Key -> how many observations are joined where that is more than one: the environment's stacks, or ``delay``'s."""
    if delay.stack > 1:
        return {key: delay.stack for key, part in spec.observation.items() if part.shape and key != LEGAL}
    return {key: spec.frame_stack for key in spec.stacked if spec.frame_stack > 1}


def _history_spec(action: ActionSpec, length: int) -> ArraySpec:
    if action.kind == "continuous":
        return ArraySpec((length * int(np.prod(action.shape, dtype=np.int64)),), "float32")
    return ArraySpec((length * len(action.choices),), "int64", 0, max(action.choices))


class DecisionRows:
    """One environment, frame by frame, and the rows of the decisions that act in it.

    Args:
        env: of one environment; ``reset`` starts it.
        delay: the default behaviour and the history of actions; when decisions act is not read here.
        seed: of the default behaviour's random actions.
        keep: how many of the newest observations can be asked for; None: as many as the delay needs.
    """

    def __init__(self, env: VectorEnv, delay: DelayConfig, seed: int, keep: int | None = None) -> None:
        if env.num_envs != 1:
            raise ValueError(f"num_envs={env.num_envs}: decisions act in one environment each")
        self._env, self._delay, self._seed, self._inner = env, delay, seed, env.spec
        self.spec = delayed_spec(env.spec, delay)
        """Of the rows."""
        self.keep = delay.longest + 1 if keep is None else keep
        """Observations that can be asked for: those of frames above ``frame - keep``."""
        self._default = DefaultBehaviour(env.spec.action, delay.default, delay.noop_action, seed)
        self._stack = stack_depths(env.spec, delay)
        self._now = {} if delay.stack > 1 else self._stack  # what there was shows the environment's own stacks only
        self._size = self.keep + max(self._stack.values(), default=1) - 1
        self._ring: ArrayDict = {key: part.zeros(self._size) for key, part in env.spec.observation.items()}
        self._back = np.arange(-delay.history, 0)
        self._applied = env.spec.action.array.zeros(self.keep + delay.history)  # of frame f at f % len
        self.frame = 0
        """Frames since the episode's start: ``o_frame`` is the newest observation."""
        self.over = False
        """The episode has ended; ``o_frame`` is its final observation."""
        self.frames = self.inaction = 0
        """Frames in all, and those that the default behaviour played."""
        self.asked = False
        """A decision of this episode has been asked for."""
        self._flags = [False, False]  # terminated, truncated, since the last decision
        self._span = [0.0, 0.0, 0]  # reward, raw reward, elapsed, since the last decision

    @property
    def span(self) -> tuple[float, int]:
        """Raw reward and elapsed steps since the last decision acted, or since the start."""
        return float(self._span[1]), int(self._span[2])

    def reset(self, seed: int) -> None:
        """Start an episode; same seed, same frames."""
        self._env.reset(seed)
        self._default.reset(np.random.default_rng([self._seed, seed]))
        self.frames = self.inaction = 0
        self._start(self._env.recv())

    def restart(self) -> None:
        """After ``end``: begin the next episode."""
        if not self.over:
            raise RuntimeError("restart() is for episodes that are over")
        self._env.send(self._default.noop)
        self._start(self._env.recv())

    def observation(self, source: int, executes: int | None = None) -> ArrayDict:
        """``o_source``, key -> [1, ...], arrays of its own.

        The history of actions ends before frame ``source``, or before frame ``executes`` where that is given. A source
        below 0 gives zeros. ValueError for observations that are not kept (any more).
        """
        if source >= 0 and not self.frame - self.keep < source <= self.frame:
            raise ValueError(f"observation {source} is not there: kept are the newest {self.keep}, up to {self.frame}")
        seen = {key: part.zeros(1) for key, part in self.spec.observation.items() if key not in self._ring}
        for key in self._ring:
            seen[key] = self._picture(key, source, self._stack.get(key, 1))
            if self._delay.privileged:
                seen[f"{NOW}{key}"] = self._picture(key, self.frame, self._now.get(key, 1))
        if self._delay.history:
            until = source if executes is None else executes
            if not self.frame - self.keep < until <= self.frame and until > 0:
                raise ValueError(f"the actions before frame {until} are not all there; the newest is {self.frame}")
            self._fill_history(seen[HISTORY], until)
        return {key: seen[key] for key in self.spec.observation}

    def decide(self, source: int) -> EnvStep:
        """The row [1] of the decision from ``o_source`` that acts now.

        It carries the sums since the last decision acted, which then begin anew. The first of an episode has
        ``first=True``, and as raw reward and ``elapsed`` what there was before it: no action is to blame for that. An
        episode that ended before any decision acted must be asked for one all the same, whose action is ignored.
        """
        if self.over and self.asked:
            raise RuntimeError("the episode is over: no decision acts in it any more; call end()")
        return self._row(source, final=False)

    def step(self, action: np.ndarray | None) -> None:
        """One frame with this action [1, ...] of a decision; None: the default behaviour acts.

        An action that is not legal (any more), where the environment says which are, is left to it as well.
        """
        if self.over:
            raise RuntimeError("the episode is over: call end() and restart()")
        at = self.frame % self._size
        legal = self._ring[LEGAL][at] if LEGAL in self._ring else None
        if action is not None and legal is not None and not self._default.is_legal(action, legal):
            action = None
        if action is None:
            action = self._default.action(legal)
            self.inaction += 1
        else:
            self._default.decided(action)
        self._applied[self.frame % len(self._applied)] = action[0]
        self._env.send(action)
        row = self._env.recv()
        self.frame += 1
        self.frames += 1
        self._keep_row(row)
        span, flags = self._span, self._flags
        span[0] += float(row.reward[0])
        span[1] += float(row.raw_reward[0])
        span[2] += 1 if row.elapsed is None else int(row.elapsed[0])
        flags[0] |= bool(row.terminated[0])
        flags[1] |= bool(row.truncated[0])
        self.over = not bool(row.valid[0])

    def end(self, source: int) -> EnvStep:
        """The final row [1] of an episode that is over, with what the next decision would have been made from."""
        if not (self.over and self.asked):
            raise RuntimeError("end() is for episodes that are over and in which a decision was asked for")
        return self._row(source, final=True)

    def state(self) -> ArrayDict:
        """Everything needed to go on exactly, the environment included. ``StateUnsupported`` where that has none."""
        saved = {f"env/{name}": value for name, value in self._env.state().items()}
        saved |= {f"ring/{key}": ring.copy() for key, ring in self._ring.items()}
        saved |= {f"default/{name}": value for name, value in self._default.state().items()}
        counts = [self.frame, self.frames, self.inaction, self.over, self.asked, *self._flags, self._span[2]]
        saved |= {"counts": np.array(counts, np.int64), "span": np.array(self._span[:2], np.float64)}
        return saved | {"applied": self._applied.copy()}

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``."""

        self._env.load_state(under(state, "env/"))
        for key, value in under(state, "ring/").items():
            self._ring[key][:] = value
        self._default.load_state(under(state, "default/"))
        self._applied[:] = state["applied"]
        self.frame, self.frames, self.inaction, over, begun, terminated, truncated, elapsed = map(int, state["counts"])
        self.over, self.asked, self._flags = bool(over), bool(begun), [bool(terminated), bool(truncated)]
        self._span = [float(state["span"][0]), float(state["span"][1]), elapsed]

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _start(self, row: EnvStep) -> None:
        while not row.valid[0]:  # a row without an episode, see EnvStep
            self._env.send(self._default.noop)
            row = self._env.recv()
        self.frame, self.over, self.asked = 0, False, False
        self._flags, self._span = [False, False], [0.0, 0.0, 0]
        self._default.start()
        self._keep_row(row)

    def _keep_row(self, row: EnvStep) -> None:
        at = self.frame % self._size
        for key, ring in self._ring.items():
            ring[at] = row.observation[key][0]

    def _picture(self, key: str, source: int, depth: int) -> np.ndarray:
        """One key of ``o_source``, joined with the ``depth`` - 1 before it; zeros below 0."""
        ring = self._ring[key]
        if source < 0:
            return np.zeros((1, depth * ring.shape[1], *ring.shape[2:]) if ring.ndim > 1 else 1, ring.dtype)
        at = source % self._size
        return ring[at : at + 1].copy() if depth == 1 else self._stacked(ring, source, depth)

    def _stacked(self, ring: np.ndarray, source: int, depth: int) -> np.ndarray:
        channels = ring.shape[1]
        stack = np.empty((1, depth * channels, *ring.shape[2:]), ring.dtype)
        for place, frame in enumerate(range(source - depth + 1, source + 1)):
            here = stack[0, place * channels : (place + 1) * channels]
            if frame < 0 and self._inner.stack_padding == "zero":
                here[...] = 0
            else:
                here[...] = ring[max(frame, 0) % self._size]
        return stack

    def _fill_history(self, history: np.ndarray, until: int) -> None:
        frames = self._back + until
        known = frames[frames >= 0]
        if not len(known):
            return
        newest = self._applied[known % len(self._applied)].reshape(-1)
        history[0, history.shape[1] - len(newest) :] = newest + (0 if self._inner.action.kind == "continuous" else 1)

    def _row(self, source: int, *, final: bool) -> EnvStep:
        first, (reward, raw, elapsed), (terminated, truncated) = not self.asked, self._span, self._flags
        row = EnvStep(
            env_ids=np.zeros(1, np.int64),
            observation=self.observation(source, self.frame if self._delay.history_until == "publish" else None),
            reward=np.array([0.0 if first else reward], np.float32),
            raw_reward=np.array([raw], np.float32),
            terminated=np.array([terminated and not first]),
            truncated=np.array([truncated and not first]),
            first=np.array([first]),
            valid=np.array([not final]),
            elapsed=np.array([elapsed], np.int32),
        )
        if not (first and self.over):  # else the final row says how the episode ended
            self._flags = [False, False]
        self.asked, self._span = True, [0.0, 0.0, 0]
        return row
