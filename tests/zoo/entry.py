"""What is known of one environment of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ALL = ("impala", "dqn")
POLICY = ("impala",)
"""Agents for continuous actions."""


@dataclass(frozen=True)
class Entry:
    """One environment, and what becomes of it."""

    name: str
    make: Callable[..., Any]
    """Makes it; travels to other processes."""
    says: str = ""
    """Pattern of the line with which it is refused, or ends a run; empty: it trains."""
    at: Literal["start", "look", "run"] = "start"
    """Where ``says`` is said: when one is made and reset, before there is a run folder; in the steps that deterministic
    runs play before that; or where a role first meets it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the run, beside those that all have."""
    agents: tuple[str, ...] = ALL
    """Those that can take its actions; the first one trains in the ordinary suite."""
    single: bool = True
    """Whether ``make`` gives one Gymnasium environment, which actions can be tried on."""
    ends: bool = True
    """Whether episodes end, so that it can be scored."""
    film_says: str = ""
    """Pattern of the line with which a film of it is refused."""
    resume_says: str = ""
    """Pattern of the line with which it is not gone on with."""
    local_trains: bool = False
    """Whether it trains where nothing has to be deterministic, although it is refused where something has."""
    error: str = ""
    """Pattern of the checker's error; empty: ``says``, or none where it trains."""
    warns: tuple[str, ...] = ()
    """Patterns of all of the checker's warnings."""

    @property
    def trains(self) -> bool:
        """Whether a run of it comes to its end."""
        return not self.says
