"""Environments that do not do as they say."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.registry import make_env
from tests.zoo.entry import ALL, Entry
from tests.zoo.small import VECTOR, ZEROS, Gives, Small

IMAGE = spaces.Box(0, 255, (6, 7, 3), np.uint8)


class Shows(Small):
    """Shows the same thing, whatever its space."""

    def __init__(self, given: Any, space: Any = VECTOR, later: bool = False) -> None:
        """``later``: in the third step only; members of the space before that."""
        super().__init__(space)
        self.given, self.later = given, later

    def seen(self) -> Any:
        return super().seen() if self.later and self.t < 3 else self.given


class OldReset(Small):
    """Of before Gymnasium 0.26: reset gives an observation."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class OldStep(Small):
    """Of before Gymnasium 0.26: step gives four things."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class NoSeed(Small):
    """Its reset takes no seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class IgnoresSeed(Small):
    """Draws from a generator of its own."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=None)


class Remembers(Small):
    """Shows how often it was reset: the same seed does not give the same episode."""

    count = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count += 1
        return super().reset(seed=seed)

    def seen(self) -> Any:
        return np.full(3, self.count / 1e4, np.float32)


class Raises(Small):
    """Raises in one of its methods, ``after`` so many calls."""

    def __init__(self, where: str, after: int = 0) -> None:
        self.where, self.left = where, after
        self.called("__init__")
        super().__init__()

    def called(self, where: str) -> None:
        """Raise if this is the place."""
        if where == self.where:
            if self.left == 0:
                raise RuntimeError(f"broken in {where}")
            self.left -= 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.called("reset")
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.called("step")
        return super().step(action)

    def close(self) -> None:
        self.called("close")


class Exits(Small):
    """Ends the program in its third step."""

    def step(self, action: Any) -> Any:
        if self.t == 2:
            raise SystemExit(3)
        return super().step(action)


class Sized(Small):
    """A class that needs arguments."""

    def __init__(self, size: int, *, speed: float) -> None:
        super().__init__(length=size)


class Buffered(Small):
    """Shows one array, which it changes at each step."""

    def __init__(self, space: Any = VECTOR) -> None:
        super().__init__(space)
        self.buffer = np.zeros(space.shape, space.dtype)

    def seen(self) -> Any:
        self.buffer[...] = super().seen()
        return self.buffer


class Frozen(Buffered):
    """Shows one array that nobody may write into."""

    def seen(self) -> Any:
        view = super().seen().view()
        view.flags.writeable = False
        return view


class Differs(Small):
    """Each one that is made shows more than the one before."""

    made = 0

    def __init__(self) -> None:
        Differs.made += 1
        super().__init__(spaces.Box(-1, 1, (2 + Differs.made % 2,)))


class NeedsClose(Small):
    """Counts those that are open."""

    opened = 0

    def __init__(self) -> None:
        super().__init__()
        NeedsClose.opened += 1
        self.open = True

    def close(self) -> None:
        NeedsClose.opened -= self.open
        self.open = False


class ClosesOnce(NeedsClose):
    """Raises when it is closed again."""

    def close(self) -> None:
        if not self.open:
            raise RuntimeError("already closed")
        super().close()


class Slow(Small):
    """Takes its time: to be made, and for each step."""

    def __init__(self, making: float = 0.0, stepping: float = 0.0) -> None:
        time.sleep(making)
        super().__init__()
        self.stepping = stepping

    def step(self, action: Any) -> Any:
        time.sleep(self.stepping)
        return super().step(action)


class LeavesThread(Small):
    """Its first step starts a thread that its close does not end."""

    thread: threading.Thread | None = None

    def step(self, action: Any) -> Any:
        if self.thread is None:
            self.thread = threading.Thread(target=time.sleep, args=(3,), daemon=True)
            self.thread.start()
        return super().step(action)


class Talks(Small):
    """Prints a lot."""

    def step(self, action: Any) -> Any:
        print("step", self.t, "of", self.length)
        return super().step(action)


class Wanders(Small):
    """Changes the working directory."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        os.chdir(tempfile.gettempdir())
        return super().reset(seed=seed)


class Draws(Small):
    """Draws itself, if it is asked to."""

    metadata = {"render_modes": ["rgb_array", "human", "ansi"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, picture: Any = None) -> None:
        super().__init__()
        self.render_mode, self.picture = render_mode, picture

    def render(self) -> Any:
        return np.full((32, 48, 3), 10 * self.t, np.uint8) if self.picture is None else self.picture


class Bare:
    """No environment at all."""


_shared: list[Small] = []


def same() -> Small:
    """The same environment at each call."""
    if not _shared:
        _shared.append(Small())
    return _shared[0]


def vector() -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Two at once, as Gymnasium has them."""
    return gymnasium.vector.SyncVectorEnv([Small, Small])


def vector_of(config: Any, num_envs: int, **_: Any) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """As many at once as are asked for, as Gymnasium has them."""
    return gymnasium.vector.SyncVectorEnv([Small] * num_envs)


def own_vector(config: EnvConfig, num_envs: int, **options: Any) -> VectorEnv:
    """As many at once as are asked for, as offbeat has them."""
    return make_env(EnvConfig(id="toy/catch"), num_envs, **options)


def nothing() -> None:
    """Gives none."""


def pictured(space: Any) -> gymnasium.Env[Any, Any]:
    """Floats from 0 to 1 that the space calls bytes."""
    return Shows(np.full(space.shape, 0.5), space)


BELONG = r"observation '\w+' must belong to .*, but "
NAN, INF = np.full(3, np.nan, np.float32), np.array([0, np.inf, 0], np.float32)
BROKEN = {"learner.nonfinite_limit": 2}
LONGER_BROKEN = BROKEN | {"total_frames": 2000}  # not every batch of a replay holds one
DIAGNOSIS = r"2 updates in a row.* not finite"
UNSTEADY = "cannot be saved exactly: the same seed and actions did not give the same observation"
UNSTABLE = (r"reset\(seed=\.\.\.\) does not repeat itself",)
UNLIKE = "must have the same spaces"
ONE_BUFFER = "one array that it changes"
PAIR = spaces.Dict({"a": spaces.Discrete(3), "b": VECTOR})


def wrong(name: str, make: Any, says: str, **known: Any) -> Entry:
    """Only a step or a later reset can show it."""
    return Entry(name, make, says, **{"at": "look"} | known)


def shown(name: str, make: Any, says: str, **known: Any) -> Entry:
    """Its first reset shows it, before there is a run folder."""
    return Entry(name, make, says, **known)


ENTRIES = [
    shown("wrong-shape", partial(Shows, np.zeros(4, np.float32)), BELONG + r"its shape is \[4\]"),
    wrong("wrong-shape-later", partial(Shows, np.zeros(4, np.float32), later=True), BELONG + r"its shape is \[4\]"),
    shown("wrong-picture", partial(Shows, np.zeros((3, 6, 7), np.uint8), IMAGE), BELONG + r"its shape is \[3, 6, 7\]"),
    Entry("wrong-float64", partial(Shows, np.zeros(3)), warns=("float64",)),
    Entry("wrong-list", partial(Shows, [0.0, 0.5, 1.0]), warns=("list",)),
    shown("wrong-text", partial(Shows, np.array(["a", "b", "c"])), BELONG + "its dtype is <U1"),
    shown("wrong-nothing", partial(Shows, None), BELONG + r"its shape is \[\]"),
    shown("wrong-float-bytes", partial(pictured, IMAGE), BELONG + "its dtype is float64"),
    Entry("outside-box", partial(Shows, np.full(3, 9, np.float32)), warns=(r"outside of",)),
    shown("outside-bytes", partial(Shows, np.full((6, 7, 3), 300), IMAGE), BELONG + "300 is outside"),
    wrong("outside-discrete", partial(Shows, 3, spaces.Discrete(3), later=True), BELONG + "3 is outside"),
    shown("outside-bits", partial(Shows, [0, 2], spaces.MultiBinary(2)), BELONG + "2 is outside"),
    shown("missing-key", partial(Shows, {"a": 1}, PAIR), BELONG + "there is no 'b' in it"),
    wrong("missing-key-later", partial(Shows, {"b": ZEROS}, PAIR, later=True), BELONG + "there is no 'a' in it"),
    Entry("more-keys", partial(Shows, {"a": 1, "b": ZEROS, "c": 3}, PAIR), warns=(r"'c'",)),
    wrong(
        "observation-nan", partial(Shows, NAN, later=True), DIAGNOSIS, at="run", options=LONGER_BROKEN, error="was nan"
    ),
    wrong("observation-inf", partial(Shows, INF), DIAGNOSIS, at="run", options=BROKEN, error="was inf"),
    wrong(
        "observation-beyond-float32",
        partial(Shows, np.full(3, 1e200), spaces.Box(-np.inf, np.inf, (3,), np.float64)),
        DIAGNOSIS,
        at="run",
        options=BROKEN,
        error=r"1e\+200",
    ),
    shown("old-reset", OldReset, r"reset\(\) must return \(observation, info\)"),
    wrong(
        "old-step", OldStep, r"step\(\) must return \(observation, reward, terminated, truncated, info\).*tuple of 4"
    ),
    wrong("step-nothing", partial(Gives), r"step\(\) must return .*it returned a tuple of 0"),
    wrong("flag-array", partial(Gives, ZEROS, 1.0, np.array([True, False]), False, {}), "terminated as True or False"),
    wrong("flag-text", partial(Gives, ZEROS, 1.0, False, "no", {}), "truncated as True or False"),
    shown("no-seed", NoSeed, r"reset\(\) takes no seed"),
    wrong("ignores-seed", IgnoresSeed, UNSTEADY, local_trains=True, warns=UNSTABLE),
    Entry("remembers", Remembers, resume_says=UNSTEADY, warns=UNSTABLE),
    Entry("raises-init", partial(Raises, "__init__"), "broken in __init__"),
    shown("raises-reset", partial(Raises, "reset"), "broken in reset"),
    wrong("raises-reset-later", partial(Raises, "reset", 2), "broken in reset"),
    wrong("raises-step", partial(Raises, "step", 9), "broken in step"),
    Entry("raises-close", partial(Raises, "close"), warns=(r"close\(\) raised",)),
    wrong("exits", Exits, "SystemExit"),
    shown("vector", vector, r"gave SyncVectorEnv; expected a gymnasium\.Env", single=False),
    Entry(
        "vector-of",
        vector_of,
        "deterministic runs need that, or a factory of single ones",
        "look",
        single=False,
        local_trains=True,
    ),
    Entry("vector-own", own_vector, single=False),
    Entry("needs-arguments", Sized, r"class that needs size, speed; hand over functools\.partial"),
    Entry("has-arguments", partial(Sized, 4, speed=1.0)),
    Entry("no-environment", Bare, "gave Bare; expected a gymnasium.Env"),
    Entry("nothing", nothing, "gave NoneType; expected a gymnasium.Env"),
    Entry("same", same, "gave the same environment twice"),
    Entry("buffer", Buffered, warns=(ONE_BUFFER,)),
    Entry("buffer-picture", partial(Buffered, spaces.Box(0, 255, (6, 7, 1), np.uint8)), warns=(ONE_BUFFER,)),
    Entry("buffer-frozen", Frozen, warns=(ONE_BUFFER,)),
    wrong("differs", Differs, UNLIKE, error=f"two of them have different|{UNLIKE}"),
    Entry("slow-init", partial(Slow, 0.01)),
    Entry("needs-close", NeedsClose),
    Entry("closes-once", ClosesOnce),
    Entry("leaves-thread", LeavesThread, warns=(r"\d threads and 0 processes go on",)),
    Entry("talks", Talks, warns=("prints",)),
    Entry("wanders", Wanders, warns=("working directory",)),
    Entry("draws", partial(Draws, "rgb_array")),
    Entry("draws-not", Draws),
    Entry(
        "draws-wrong",
        partial(Draws, "rgb_array", np.zeros((3, 8, 8))),
        film_says=r"expected uint8 \[H, W, 3\]",
        warns=("films of it fail",),
    ),
    Entry("draws-window", partial(Draws, "human"), warns=("human",)),
]
assert all(entry.agents == ALL for entry in ENTRIES)
