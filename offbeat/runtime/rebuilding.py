"""Whether a learner that died is rebuilt, and what has to be set right in the memory that it leaves behind."""

from __future__ import annotations

from offbeat.runtime.world import World


class Rebuilding:
    """Of the learner that keeps what a run has learnt, or of all that step together. In the main process.

    Asked once they are dead: nobody else writes what is read and set here.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._began = -1
        """Updates of the run when they were rebuilt last; -1: they never were."""

    def refused(self) -> str:
        """Why they are not rebuilt; empty: they are. One that never comes to an update would die for ever."""
        world = self._world
        if world.mirror is not None and not world.mirror.filled():
            return "it is not rebuilt, since it had not begun to learn"
        if world.master is not None and not world.master.store().version():
            return "it is not rebuilt, since it had not begun to learn"
        if self._updates() <= self._began:
            return "it is not rebuilt again, since it had not made one update since it was rebuilt"
        return ""

    def begin(self) -> int:
        """Give back what the dead held, so that others can begin; how many updates are lost."""
        world = self._world
        lost = 0 if world.mirror is None else world.mirror.rebuild(world.learnt())
        self._began = self._updates()
        world.board["idle"][0] = 0
        world.board["pause"][0] = 0  # it may have died while it saved the streams
        for shared in (world.reduction, world.dealing):
            if shared is not None:
                shared.clear()
        world.ring()
        return lost

    def _updates(self) -> int:
        """Of the run, by all that learners have told."""
        seen, mirror = self._world.learnt(), self._world.mirror
        return max(seen.updates, 0 if mirror is None else mirror.counted().updates)
