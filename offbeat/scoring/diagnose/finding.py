"""What is found wrong with a run, and what finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from offbeat.scoring.diagnose.record import Record


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it is in runs that learn."""

    seen: str
    """What it is, with the number."""
    usual: str
    """What that number is in runs that learn."""
    options: str
    """What to try."""

    def line(self, name: str) -> str:
        """The finding in one line. ``name``: of the judge that found it."""
        return f"{name}: {self.seen}; usual: {self.usual}; try: {self.options}"


@dataclass(frozen=True)
class Judge:
    """One row of the table of judges."""

    name: str
    """Of what it looks at, as findings are headed."""
    find: Callable[[Record], Finding | None]
    """Pure: looks at a record and nothing else."""
    needs: tuple[str, ...] = ()
    """What must be known: names of ``Record.known``. Without it there is no verdict, and that is said."""
    unless_learning: bool = False
    """Not asked where returns rise: what it looks at does no harm there, and healthy runs have it too."""

    def missing(self, record: Record) -> list[str]:
        """What it needs and ``record`` does not hold."""
        return [name for name in self.needs if name not in record.known]
