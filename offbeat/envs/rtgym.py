"""Worlds with a clock of their own, as rtgym has them: an interface class of a robot or a game becomes an environment.

rtgym's own environment is made around it: ``step`` waits until its time step is over, and the action acts during the
next one. Nothing here waits, and no other clock may be put on top (``realtime.fps``).
Source: rtgym 0.16, ``RealTimeGymInterface`` and ``DEFAULT_CONFIG_DICT``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import gymnasium

from offbeat.envs.base import EnvUnavailable, Misbehaved
from offbeat.errors import nearest

METHODS = (
    "send_control", "get_obs_rew_terminated_info", "get_observation_space", "get_action_space", "get_default_action",
    "reset",
)  # fmt: skip
"""What a class of rtgym's interface has, whatever it is derived from."""
INTERFACE = "interface"
"""What names the class in rtgym's configuration."""
BESIDE = ("act_prepro_func", "obs_prepro_func")
"""What rtgym reads of a configuration beside what its default one holds."""
ENV_ID = "real-time-gym-v1"
EXTRA = "pip install 'offbeat[rtgym]'"


def is_interface(thing: object) -> bool:
    """Whether it is such a class, or a ``partial`` of one."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return (
        isinstance(thing, type)
        and not issubclass(thing, gymnasium.Env)
        and all(callable(getattr(thing, name, None)) for name in METHODS)
    )


def with_clock(given: Any) -> Any:
    """``given`` as an ``OwnClock`` where it is an interface class or a configuration of rtgym; else as it is."""
    if is_interface(given):
        return OwnClock({INTERFACE: given})
    if isinstance(given, Mapping) and is_interface(given.get(INTERFACE)):
        return OwnClock(given)
    return given


class OwnClock:
    """Makes rtgym's environment around an interface: an ``env_factory`` that processes can be handed."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """``config``: of rtgym; what it lacks is as in rtgym's default one."""
        self.config = dict(config)
        named = self.config[INTERFACE]
        while isinstance(named, functools.partial):
            named = named.func
        self.__module__, self.__name__, self.__qualname__ = named.__module__, named.__name__, named.__qualname__

    def __call__(self) -> gymnasium.Env[Any, Any]:
        """One environment. ``EnvUnavailable`` without rtgym, ``Misbehaved`` for what its configuration cannot be."""
        try:
            import rtgym
        except ImportError as error:
            raise EnvUnavailable(
                f"{self.__name__} is an interface of rtgym, which is missing ({error}): {EXTRA}"
            ) from error
        known = [*rtgym.DEFAULT_CONFIG_DICT, *BESIDE]
        for name in self.config:
            if name not in known:
                raise Misbehaved(
                    f"{self.__name__}: rtgym's configuration has no {name!r}{nearest(name, known) or ';'} known: "
                    f"{', '.join(known)}"
                )
        config = {**rtgym.DEFAULT_CONFIG_DICT, **self.config}
        if not config["time_step_duration"] > 0:
            raise Misbehaved(
                f"{self.__name__}: time_step_duration={config['time_step_duration']} must be above 0 seconds"
            )
        return _Ending(gymnasium.make(ENV_ID, config=config, disable_env_checker=True), config["time_step_duration"])


class _Ending(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Leaves the world as it should be left: with the default action, and its interface closed."""

    def __init__(self, env: gymnasium.Env[Any, Any], step_s: float) -> None:
        super().__init__(env)
        self._begun = self._closed = False
        self.metadata = {**env.metadata, "render_fps": 1 / step_s, "render_modes": []}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As rtgym does it: the default action acts from here on."""
        self._begun = True
        return super().reset(seed=seed, options=options)

    def close(self) -> None:
        """End the time step that goes on, have the default action act, and close the interface, if it can be."""
        if self._closed:
            return
        self._closed = True
        inner: Any = self.unwrapped
        if self._begun:
            inner.stop()
            inner.interface.send_control(inner.default_action)
        close = getattr(inner.interface, "close", None)
        if callable(close):
            close()
        super().close()
