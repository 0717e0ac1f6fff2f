"""Atari 2600 games: their names, their spec, and the choice among three backends with one meaning for every switch."""

from __future__ import annotations

from offbeat.envs.atari_games import action_ids, ale_module, max_episode_actions
from offbeat.envs.base import EnvConfig, UnusedSwitch, VectorEnv
from offbeat.envs.pool import envpool_module
from offbeat.envs.rows import reject_unused
from offbeat.types import OBSERVATION, ActionSpec, ArraySpec, EnvSpec

OTHERS = (
    "length", "num_levels", "start_level", "distribution_mode", "renderer", "rom", "folder", "states", "advance",
)  # fmt: skip
"""Switches that mean nothing to Atari games."""
BACKENDS = ("auto", "ale", "ale-single", "envpool")


def atari_spec(config: EnvConfig, game: str) -> EnvSpec:
    """The spec of ``game``: single frames uint8 [1, size, size]."""
    reject_unused(config, tuple(name for name in EnvConfig.__dataclass_fields__ if name not in OTHERS))
    if config.backend not in BACKENDS:
        raise UnusedSwitch(config, "backend", "auto")
    if config.backend == "envpool":
        envpool_module(f"{config.id} with backend='envpool'")
    return EnvSpec(
        id=config.id,
        observation={OBSERVATION: ArraySpec((1, config.frame_size, config.frame_size), "uint8", 0.0, 255.0)},
        action=ActionSpec("discrete", len(action_ids(game, config.full_action_space))),
        frame_stack=config.frame_stack,
        stacked=(OBSERVATION,),
        stack_padding=config.stack_padding,
        frame_skip=config.frame_skip,
        max_episode_steps=max_episode_actions(config),
    )


def make_atari(
    config: EnvConfig, game: str, num_envs: int, batch_size: int | None, threads: int, deterministic: bool
) -> VectorEnv:
    """``num_envs`` games in the configured backend (``auto``: ``ale``, or ``ale-single`` if deterministic)."""
    backend = config.backend
    if backend == "auto":
        backend = "ale-single" if deterministic else "ale"
    if deterministic and backend != "ale-single":
        raise ValueError(f"backend={backend!r} cannot be saved exactly; deterministic runs need 'ale-single' or 'auto'")
    ale_module()
    spec = atari_spec(config, game)
    if backend == "ale-single":
        from offbeat.envs.atari_single import AtariSingle

        if (batch_size or num_envs) != num_envs:
            raise ValueError(
                f"backend='ale-single' steps all {num_envs} environments at once, got batch_size={batch_size}"
            )
        return AtariSingle(config, spec, game, num_envs)
    if backend == "envpool":
        from offbeat.envs.atari_envpool import AtariEnvPool

        return AtariEnvPool(config, spec, game, num_envs, batch_size or num_envs, threads)
    from offbeat.envs.atari_ale import AtariAle

    return AtariAle(config, spec, game, num_envs, batch_size or num_envs, threads)
