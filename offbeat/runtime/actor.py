"""The actor: steps a batch of environments with the policy and appends their rows to the streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ActorConfig:
    """How many environments there are and where their actions come from."""

    workers: int = 1
    """Actor processes. Each owns ``envs_per_worker`` environments and one stream for each."""
    envs_per_worker: int = 32
    """Environments per actor, stepped together; one batched forward serves them all."""
    batch: int = 0
    """Environments per forward where the library can step part of them while others act; 0: all of them."""
    inference: Literal["actor", "server"] = "actor"
    """Who runs the network: each actor its own copy, or one server that batches requests of all actors (for GPUs)."""
    threads: int = 1
    """Torch threads of each actor."""
    env_threads: int = 1
    """Native threads of the environment library of each actor."""
    hang_timeout_s: float = 60.0
    """An actor that shows no life for so long is reported with its stack, killed and replaced. Unit: seconds."""
    max_restarts: int = 5
    """Replacements of dead or hung actors in a run; one more ends it."""
