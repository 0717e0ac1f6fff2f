"""Tiny runs that were broken on purpose, each in the ways that it names, and healthy ones; made once and shared."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium
import numpy as np

from offbeat.config.auto import usable_cores
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.run.train import train
from offbeat.runtime import learner_report


class Odd(gymnasium.Env):
    """Ten steps of numbers in [-1, 1]; what is wrong with it subclasses say."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 10

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.last = 0, 0
        return self.see(), {}

    def step(self, action):
        self.at += 1
        reward, self.last = self.pay(int(action)), int(action)
        return self.see(), reward, self.at >= self.steps, False, {}

    def see(self) -> np.ndarray:
        """The observation."""
        return self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)

    def pay(self, action: int) -> float:
        """The reward."""
        return float(action)


class Unpaid(Odd):
    """Over at once, and no reward."""

    steps = 1

    def pay(self, action: int) -> float:
        return 0.0


class Steep(Odd):
    """One action pays a thousand times what the other does."""

    def pay(self, action: int) -> float:
        return 1000.0 if action else 1.0


class Endless(Odd):
    """Never over, and seen in millimetres."""

    steps = 10**9

    def see(self) -> np.ndarray:
        return 5000.0 * super().see()


class Alternate(Odd):
    """Pays for another action than the one before, and shows nothing of it: only chance gets anything."""

    def see(self) -> np.ndarray:
        return np.ones(3, np.float32)

    def pay(self, action: int) -> float:
        return float(action != self.last)


class Timed(Odd):
    """Ended by a time limit, behind which it would go on."""

    def step(self, action):
        seen, reward, over, _, info = super().step(action)
        return seen, reward, False, over, info


class Broken(Odd):
    """Now and then a reward or a number of what is seen is none."""

    def see(self) -> np.ndarray:
        seen = super().see()
        return np.where(self.np_random.random() < 0.01, np.float32(np.nan), seen)

    def pay(self, action: int) -> float:
        return float("nan") if self.np_random.random() < 0.01 else 1.0


class Slow(Odd):
    """Takes its time."""

    def step(self, action):
        time.sleep(0.02)
        return super().step(action)


@dataclass(frozen=True)
class Run:
    """A run, and what is to be found of it."""

    preset: str
    """Its name."""
    frames: int
    options: dict[str, Any] = field(default_factory=dict)
    env: Callable[..., Any] | None = None
    found: tuple[str, ...] = ()
    """Judges that are to find something; others may too."""
    quick: bool = False
    """Whether it takes less than about three seconds."""

    def make(self, folder: Path) -> Path:
        """Train it in ``folder``."""
        options: dict[str, Any] = {
            "out": str(folder), "engine": "inline", "device": "cpu", "total_frames": self.frames,
            "log.tensorboard": False, "log.dashboard": False, "log.every_updates": 10,
            "evaluation.every_frames": 0, "evaluation.episodes": 4, "evaluation.envs": 2, "evaluation.longest": 200,
        }  # fmt: skip
        config = apply_overrides(load_preset(self.preset), (options | self.options).items())
        with patch.object(learner_report, "REPORT_S", 0.0):  # lines by updates, however fast the machine is
            return train(config, env_factory=self.env).run


ON_POLICY = {"actor.envs_per_worker": 4, "learner.batch_size": 4, "learner.unroll_length": 10}
REPLAY = {"actor.envs_per_worker": 4, "learner.batch_size": 32}
ALONE = {"actor.envs_per_worker": 1, "learner.batch_size": 1, "learner.unroll_length": 100}
ITSELF = {"agent.target_period": 1, "agent.discount": 1.0, "agent.normalise_reward": False}
STILL = {"agent.target_period": 100_000, "agent.exploration": "linear", "agent.explore": 1_000_000}
OFTEN = {"replay.samples_per_insert": 128, "replay.samplers.0.min_rows": 200, "agent.target_period": 2}
NOTHING = {"env.reward_scale": 1e-9, "agent.discount": 0.0, "learner.learning_rate": 0.01}
CROWDED = {
    "engine": "local", "actor.env_threads": 3 * usable_cores(), "log.every_updates": 2,
    "evaluation.every_frames": 50, "evaluation.episodes": 40, "evaluation.at_end": False,
}  # fmt: skip

BROKEN = {
    "step too large": Run(
        "impala-cartpole", 20_000, ON_POLICY | {"learner.learning_rate": 0.1},
        found=("entropy collapsed", "actions never chosen"),
    ),
    "step too small": Run(
        "impala-cartpole", 5_000, ON_POLICY | {"learner.learning_rate": 1e-6},
        found=("entropy frozen", "values explain nothing", "learning rate"), quick=True,
    ),
    "relus overshot": Run(
        "apex-catch", 12_000, REPLAY | {"learner.learning_rate": 1.0},
        found=("silent units",),
    ),
    "rewards of 1000": Run(
        "impala-cartpole", 4_000, ON_POLICY | {"env.reward_scale": 1000.0},
        found=("scale of rewards", "gradients clipped"), quick=True,
    ),
    "unpaid": Run(
        "own", 2_000, ON_POLICY, Unpaid,
        found=("rewards never seen", "episodes end at once"), quick=True,
    ),
    "cut off": Run(
        "own", 2_000, ON_POLICY | {"env.reward_clip": "sign"}, Steep,
        found=("rewards clipped away",), quick=True,
    ),
    "endless": Run(
        "own", 12_000, ALONE | {"agent.normalise": False}, Endless,
        found=("episodes never end", "scale of observations"),
    ),
    "chance": Run(
        "own", 3_000, ON_POLICY | {"evaluation.policy": "greedy"}, Alternate,
        found=("scores below training", "observations constant"), quick=True,
    ),
    "not numbers": Run(
        "own", 2_000, ON_POLICY | {"learner.nonfinite_limit": 1_000_000}, Broken,
        found=("updates skipped", "observations not finite"), quick=True,
    ),
    "behind": Run(
        "impala-catch", 6_000, ON_POLICY | {"learner.publish_every": 100, "agent.c_bar": 0.1, "agent.rho_bar": 0.1},
        found=("importance ratios", "policy lag"),
    ),
    "for ever": Run(
        "own-replay", 4_000, REPLAY | ITSELF | {"learner.learning_rate": 0.01, "replay.samplers.0.min_rows": 200},
        Timed, found=("target network", "values drift"),
    ),
    "target that stands": Run(
        "apex-catch", 6_000, REPLAY | STILL,
        found=("target network", "epsilon high"),
    ),
    "old rows": Run(
        "apex-catch", 1_500, REPLAY | OFTEN | {"learner.batch_size": 64},
        found=("stale replay", "samples per insert"),
    ),
    "nothing to learn": Run(
        "apex-catch", 12_000, REPLAY | NOTHING,
        found=("gradients vanish", "scale of rewards"),
    ),
    "crowded": Run(
        "own", 1_000, ON_POLICY | CROWDED, Slow,
        found=("cores oversubscribed", "evaluator late", "one side waits"),
    ),
}  # fmt: skip
"""All judges find something in one of them."""

HEALTHY = {
    "catch": Run("impala-catch", 40_000, {"log.every_updates": 40}, quick=True),
    "catch in processes": Run("impala-catch", 100_000, {"engine": "local", "log.every_updates": 40}),
    "cartpole": Run("impala-cartpole", 100_000, {"log.every_updates": 40}),
    "apex": Run("apex-catch", 60_000, {"log.every_updates": 200}),
    "dqn": Run("dqn-minatar", 40_000, {"log.every_updates": 200, "agent.explore": 20_000}),
    "tmaze": Run("r2d2-tmaze", 60_000, {"log.every_updates": 50, "evaluation.episodes": 50, "evaluation.envs": 10}),
    "chain": Run("r2ac-memory-chain", 100_000, {"log.every_updates": 100, "evaluation.episodes": 50}),
}
"""No judge finds anything."""
