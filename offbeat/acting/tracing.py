"""What an evaluation leaves behind so that it can be played again: every action, every reward, every score.

A ``Tracer`` takes it down beside ``play_episodes``; ``play_again`` hands the actions to environments that were started
from the same seed, and ``first_difference`` says where what comes out is not what was taken down.

Arrays, with N environments; what belongs to environment 0 comes first, then that of 1, and so on:

    sent      int64 [N]         actions that each environment was given, those of its ended episodes too
    action    [sum(sent), ...]  those; unsigned integers as small as they may be, or float32
    rows      int64 [N]         rows of each environment that count: those until its last episode ended
    reward    float32 [sum(rows)]  the raw reward of each, as scores count it
    flag      uint8 [sum(rows)]    sum of ``FIRST``, ``VALID``, ``TERMINATED``, ``TRUNCATED``
    elapsed   int32 [sum(rows)]    environment steps of each; only where decisions are delayed
    score     float64 [E]       return of each episode, as ``Evaluation.returns``
    length    int64 [E]         its agent steps
    frames    int64 [E]         its environment frames
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from offbeat.acting.episodes import Scores, idle_actions
from offbeat.envs.base import VectorEnv
from offbeat.types import LEGAL, ActionSpec, EnvStep

FIRST, VALID, TERMINATED, TRUNCATED = 1, 2, 4, 8
"""Bits of ``flag``."""
BY_ROW = ("reward", "flag", "elapsed")
"""Arrays with an entry for each row."""
BY_EPISODE = ("score", "length", "frames")
"""Arrays with an entry for each episode."""
TRIED = 200
"""Steps of a trace that are played a second time when it is written. Unit: agent steps of each environment."""

Arrays = Mapping[str, np.ndarray]


class Tracer:
    """Takes down what ``num_envs`` environments are given and give. They may come in any order and in parts."""

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._sent: list[tuple[np.ndarray, np.ndarray]] = []

    def rows(self, step: EnvStep, playing: np.ndarray) -> None:
        """Rows as they come, before they are scored. ``playing`` [n] bool: which of them count."""
        flag = FIRST * step.first + VALID * step.valid + TERMINATED * step.terminated + TRUNCATED * step.truncated
        elapsed = np.zeros(0, np.int32) if step.elapsed is None else step.elapsed[playing].astype(np.int32)
        reward = step.raw_reward[playing].astype(np.float32)
        self._rows.append((step.env_ids[playing].copy(), reward, flag[playing].astype(np.uint8), elapsed))

    def sent(self, env_ids: np.ndarray, action: np.ndarray) -> None:
        """The actions [n, ...] that these environments are given."""
        self._sent.append((env_ids.copy(), action.copy()))

    def arrays(self, spec: ActionSpec, scores: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        """All of it as the arrays of a trace. ``spec``: of the actions; ``scores``: as of ``Scores.result``."""
        seen = _sorted([ids for ids, *_ in self._rows], self._num_envs)
        given = _sorted([ids for ids, _ in self._sent], self._num_envs)
        kind = np.dtype(np.float32) if not spec.choices else np.min_scalar_type(max(spec.choices) - 1)
        actions = [action for _, action in self._sent] or [spec.array.zeros(0)]
        columns = list(zip(*self._rows, strict=True))[1:] or [()] * 3
        empty = np.zeros(0, np.float32), np.zeros(0, np.uint8), np.zeros(0, np.int32)
        reward, flag, elapsed = (np.concatenate([none, *own]) for none, own in zip(empty, columns, strict=True))
        found = {
            "sent": given.counts,
            "action": np.concatenate(actions)[given.order].astype(kind),
            "rows": seen.counts,
            "reward": reward[seen.order],
            "flag": flag[seen.order],
        }
        if len(elapsed):
            found["elapsed"] = elapsed[seen.order]
        return found | dict(zip(BY_EPISODE, scores, strict=True))


class _Order(NamedTuple):
    """How entries that came in any order stand one environment behind the other."""

    order: np.ndarray
    counts: np.ndarray


def _sorted(ids: list[np.ndarray], num_envs: int) -> _Order:
    joined = np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64)
    return _Order(np.argsort(joined, kind="stable"), np.bincount(joined, minlength=num_envs))


def fed(env: VectorEnv, seed: int, sent: np.ndarray, action: np.ndarray) -> Iterator[EnvStep]:
    """The rows that ``env`` gives from a reset with ``seed`` on, each environment being given its actions in order.

    Environments that have had all of theirs are given idle ones, until every one has answered its last.
    """
    after = np.cumsum(sent)
    at, answers = after - sent, np.zeros(len(sent), np.int64)
    kind = env.spec.action.array.dtype
    env.reset(seed)
    while True:
        step = env.recv()
        yield step
        ids = step.env_ids
        answers[ids] += 1
        if (answers > sent).all():
            return
        chosen = idle_actions(env.spec.action, len(ids), step.observation.get(LEGAL))
        left = at[ids] < after[ids]
        chosen[left] = action[at[ids[left]]].astype(kind)
        at[ids[left]] += 1
        env.send(chosen)


def play_again(
    env: VectorEnv, seed: int, arrays: Arrays, *, episodes: int, longest: int = 0, beat: Callable[[], object] = int
) -> dict[str, np.ndarray]:
    """What comes out when the actions in ``arrays`` are played again in ``env``, as the arrays of a trace.

    ``episodes``, ``longest``: as of ``play_episodes``. ``beat`` is called at every step. ValueError for actions that
    the environment does not have.
    """
    scores, tracer = Scores(env.num_envs, episodes, env.spec, longest), Tracer(env.num_envs)
    for step in fed(env, seed, arrays["sent"], arrays["action"]):
        beat()
        tracer.rows(step, scores.playing(step.env_ids))
        scores.add(step)
        if scores.complete():
            break
    return tracer.arrays(env.spec.action, scores.result())


def repeats(env: VectorEnv, seed: int, arrays: Arrays, steps: int = TRIED, beat: Callable[[], object] = int) -> str:
    """Play the first ``steps`` of a trace again in the environments that it was made with. Where other rows come out,
    which; empty: the same.
    """
    part = np.minimum(arrays["sent"], steps)
    starts = np.cumsum(arrays["sent"]) - arrays["sent"]
    chosen = np.concatenate([np.arange(start, start + count) for start, count in zip(starts, part, strict=True)])
    tracer, left = Tracer(env.num_envs), np.minimum(arrays["rows"], part + 1)
    for step in fed(env, seed, part, arrays["action"][chosen]):
        beat()
        tracer.rows(step, left[step.env_ids] > 0)
        left[step.env_ids] -= 1
    none = (np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return first_difference(arrays, tracer.arrays(env.spec.action, none), begun=True)


def first_difference(old: Arrays, new: Arrays, *, begun: bool = False) -> str:
    """Where ``new`` is not ``old``, bit for bit: the first row, in the order of environments and of play, whose reward
    or flags differ, else the first score; empty where nothing does. ``begun``: ``new`` may be a beginning of ``old``.
    """
    before = 0
    for env in range(len(old["rows"])):
        one, two = _of_env(old, env), _of_env(new, env)
        count = min(len(one["flag"]), len(two["flag"]))
        unlike = np.zeros(count, bool)
        for name in one.keys() | two.keys():
            unlike |= _bits(one, name, count) != _bits(two, name, count)
        row = int(np.argmax(unlike)) if unlike.any() else count
        longer = (len(one["flag"]) > count and not begun) or len(two["flag"]) > count
        if row < count or longer:
            return _said(one, two, row, env, before)
        before += int(_ends(one["flag"]).sum())
    if begun:
        return ""
    for name in BY_EPISODE:
        if len(old[name]) != len(new[name]):
            return f"{len(new[name])} episodes where the trace has {len(old[name])}"
        unlike = _whole(old[name]) != _whole(new[name])
        if unlike.any():
            at = int(np.argmax(unlike))
            return f"episode {at + 1}: {name} {new[name][at]:.17g} where the trace has {old[name][at]:.17g}"
    return ""


def _of_env(arrays: Arrays, env: int) -> dict[str, np.ndarray]:
    """The rows of one environment."""
    after = int(arrays["rows"][: env + 1].sum())
    return {name: arrays[name][after - int(arrays["rows"][env]) : after] for name in BY_ROW if name in arrays}


def _bits(rows: Arrays, name: str, count: int) -> np.ndarray:
    """A column as whole numbers; where there is none, one that equals no other."""
    return _whole(rows[name][:count]) if name in rows else np.full(count, -1, np.int64)


def _whole(array: np.ndarray) -> np.ndarray:
    """Its bits: NaN equals itself, and 0.0 is not -0.0."""
    kinds = {4: np.uint32, 8: np.uint64}
    return array.view(kinds[array.itemsize]) if array.dtype.kind == "f" else array


def _ends(flag: np.ndarray) -> np.ndarray:
    """[n] bool: which rows end an episode."""
    return (flag & (FIRST | VALID)) == 0


def _said(one: Arrays, two: Arrays, row: int, env: int, before: int) -> str:
    """The line about a row of environment ``env`` that differs; ``before``: episodes of environments before it."""
    flag = (one if len(one["flag"]) > row else two)["flag"][: row + 1]
    starts = np.flatnonzero(flag & FIRST)
    step = row - (int(starts[-1]) if len(starts) else 0)
    where = f"episode {before + int(_ends(flag[:row]).sum()) + 1} (environment {env}), step {step}: "
    if len(one["flag"]) <= row:
        return f"{where}the game goes on where the trace ends"
    if len(two["flag"]) <= row:
        return f"{where}the game has ended where the trace goes on"
    if one["flag"][row] != two["flag"][row]:
        return f"{where}{_named(two['flag'][row])} where the trace has {_named(one['flag'][row])}"
    if _bits(one, "reward", row + 1)[row] != _bits(two, "reward", row + 1)[row]:
        return f"{where}reward {two['reward'][row]:.9g} where the trace has {one['reward'][row]:.9g}"
    return f"{where}another number of environment steps than the trace has"


def _named(flag: int) -> str:
    """What a row's flags say."""
    bits = {FIRST: "a start", TERMINATED: "an end", TRUNCATED: "a time limit"}
    found = [text for bit, text in bits.items() if flag & bit]
    return " and ".join(found) or ("a step" if flag & VALID else "a last row")
