"""What an environment calls its actions."""

from __future__ import annotations

from offbeat.envs.base import VectorEnv


def action_meanings(env: VectorEnv) -> tuple[str, ...]:
    """A name for each of its discrete actions, such as ``NOOP``, ``LEFT``, ``UPFIRE``; () where it gives none."""
    named = getattr(env, "action_meanings", tuple)
    given = tuple(str(name) for name in named())
    return given if len(given) == env.spec.action.num_actions else ()
