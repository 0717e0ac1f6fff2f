"""Makes the environments of a check: from an id, a class or function, or one that is lent; times, records and closes
them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from typing import Any

import gymnasium

from offbeat.acting.children import children, left_over
from offbeat.acting.env_recorder import Log, Recorder
from offbeat.acting.env_report import Findings, Sandbox
from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.factories import makes_one_env
from offbeat.envs.gymnasium import GymnasiumVector, unavailable, vector_alone
from offbeat.envs.registry import make_env, single_factory
from offbeat.envs.vectorised import singly
from offbeat.errors import called

LIMIT_S = 60.0
"""Making or closing one environment may take so long. Unit: seconds."""
SLOW_S = 1.0
"""From here on making one takes long, as a run needs dozens. Unit: seconds."""


class Maker:
    """Makes environments and keeps all that it made.

    Args:
        config: their switches; their id, where ``given`` is None.
        given: a class or function that makes them, or one environment, which is only lent.
        found: what is wrong with that is noted here.
        box: calls them.
    """

    def __init__(self, config: EnvConfig, given: Any, found: Findings, box: Sandbox) -> None:
        self._config, self._found, self._box = config, found, box
        self.lent = given if isinstance(given, gymnasium.Env) else None
        self._by_id = given is None
        self._factory = single_factory(config.id) if given is None else given
        self.by_factory = self.lent is None and self._factory is not None
        """Whether a class or function of somebody's makes them, and not offbeat itself."""
        self.log = Log([])
        """Of all that is made."""
        self._made: list[Recorder] = []
        self._vectors: list[Any] = []
        self._many: list[VectorEnv] = []
        """By vector entry points, beside single ones."""
        self._took: list[float] = []
        self._threads, self._processes = threading.active_count(), children()

    def alone(self) -> bool:
        """Whether one Gymnasium environment is made at a time; else whole batches, as a ``VectorEnv``."""
        if self.lent is not None or self._factory is None:
            return self.lent is not None
        single = True
        with self._box.trying("its factory", LIMIT_S):
            single = makes_one_env(self._factory)
        return single

    def one(self) -> list[Any]:
        """What the factory gives, whatever that is; nothing, but an error noted, where it raises."""
        if self.lent is not None:
            return [self.lent]
        made: list[Any] = []
        with self._box.trying("making it", LIMIT_S):
            try:
                made.append(self._make())
            except Exception as error:
                unknown = isinstance(error, gymnasium.error.UnregisteredEnv | ModuleNotFoundError)
                if self._by_id and (unknown or vector_alone(self._config.id)):
                    raise unavailable(self._config.id, error) from error
                raise
        return made

    def vector(self, count: int = 1) -> VectorEnv | None:
        """``count`` more of them, as a run steps them; None, with an error noted, where there are none."""
        made: list[VectorEnv] = []
        with self._box.trying("making it", LIMIT_S):
            made.append(self._vector(count))
        self._vectors += made
        return made[0] if made else None

    def by_vector(self, count: int, note: Callable[[str], None]) -> VectorEnv | None:
        """``count`` copies by the vector entry point of an id; None, after a ``note`` of why, where that cannot be."""
        made: list[VectorEnv] = []
        with self._box.trying("its vector entry point", LIMIT_S, note):
            config = replace(self._config, vectorised="yes")
            made.append(make_env(config, count, factory=None if self._by_id else self._factory))
        self._many += made
        return made[0] if made else None

    def _vector(self, count: int) -> VectorEnv:
        if self.lent is not None:  # no factory, which would have to give another one each time
            recorded = Recorder(self.lent, self.log, self._box, lent=True)
            return GymnasiumVector(self._config, 1, lambda: recorded)
        if self._factory is not None and self.alone():
            made = make_env(singly(self._config), count, factory=self._named())
        else:
            made = make_env(self._config, count, factory=self._factory)
        if isinstance(made, GymnasiumVector):
            made.keep_actions()
        return made

    def _make(self) -> Any:
        factory: Any = self._factory
        started = time.perf_counter()
        with self._box.calling("the constructor"):
            env = factory()
        self._took.append(time.perf_counter() - started)
        if not isinstance(env, gymnasium.Env):
            self._vectors += [env] * hasattr(env, "close")
            return env
        self._made.append(Recorder(env, self.log, self._box))
        return self._made[-1]

    def _named(self) -> Any:
        """What makes recorded environments under the factory's own name, for messages."""

        def make() -> Any:
            return self._make()

        make.__module__, _, make.__qualname__ = called(self._factory).rpartition(".")
        return make

    def describe(self) -> None:
        """Say how long making one takes, and whether other processes can."""
        self._travels()
        if not self._took:
            return
        longest = max(self._took)
        self._found.facts["making one"] = f"{longest:.3g} s at most, of {len(self._took)}"
        if longest > SLOW_S:
            self._found.warning(
                f"making one took {longest:.1f} s: each actor makes actor.envs_per_worker of them, one after the "
                "other, before it starts; load what is large once for the whole process"
            )

    def _travels(self) -> None:
        """Say, before all else that is a warning, that what makes them cannot be handed to the processes of a run."""
        if self.lent is not None:
            return
        makes = self._factory
        if self._by_id:
            found = gymnasium.registry.get(self._config.id)
            makes = None if found is None else (found.entry_point, found.vector_entry_point)
        try:
            ForkingPickler.dumps(makes)
        except Exception as error:  # whatever its members raise
            line = (
                f"'offbeat train' refuses it: {makes!r} cannot be handed to the processes of a run "
                f"({type(error).__name__}: {error}); define it at the top of a module; only engine = 'inline', which "
                "starts none, can use it"
            )
            self._found.warnings.insert(0, " ".join(line.split()))

    def close(self) -> None:
        """Close everything that was made here, once."""
        if self.lent is not None:
            self._found.facts["closing"] = "not tried: it is yours"
            return
        before = len(self._found.warnings)
        for env in self._made:
            with self._box.trying("closing it", LIMIT_S, self._found.warning):
                env.close()
        for vector in [*self._many, *([] if self._made else self._vectors)]:
            with self._box.trying("closing it", LIMIT_S, self._found.warning):
                vector.close()
        threads = threading.active_count() - self._threads
        processes = len(left_over(self._processes))
        if threads > 0 or processes:
            self._found.warning(
                f"{max(threads, 0)} threads and {processes} processes go on after close(): end them there, or "
                "programs will not end"
            )
        if len(self._found.warnings) == before and (self._made or self._vectors):
            self._found.facts["closing"] = f"{len(self._many) + (len(self._made) or len(self._vectors))} closed"
