"""Scores of a finished or running run, and watching it play."""

from __future__ import annotations

from offbeat.episodes import play_episodes
from offbeat.scores import Evaluation

__all__ = ["Evaluation", "play_episodes"]
