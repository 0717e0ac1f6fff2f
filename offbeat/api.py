"""The Python interface: the same names and options as the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offbeat.config import RunConfig
    from offbeat.load import LoadedAgent
    from offbeat.scores import Evaluation
    from offbeat.train import RunResult


def train(preset: str | Path | RunConfig, *, from_run: str | Path | None = None, **overrides: Any) -> RunResult:
    """Train a preset (name or .toml file) or a configuration, and return the run's result once it has ended.

    Args:
        from_run: start from the newest weights of this run, in a folder of its own.
        overrides: options as on the command line; ``learner__batch_size=16`` stands for ``learner.batch_size``,
            ``env="Breakout"`` for ``env.id``. A dict sets several of a section: ``learner={"batch_size": 16}``.

    Raises:
        UserError: the configuration cannot run here. Nothing has been started then.
    """
    from offbeat.config import RunConfig, apply_overrides, load_preset
    from offbeat.runs import find_run
    from offbeat.train import train as start

    config = preset if isinstance(preset, RunConfig) else load_preset(preset)
    config = apply_overrides(config, _flat(overrides))
    return start(config, init_from=None if from_run is None else find_run(from_run))


def load(run: str | Path, *, greedy: bool = True, seed: int = 0, device: str = "cpu") -> LoadedAgent:
    """The agent of a run with its newest weights, ready to act: ``offbeat.load(run).act(observation)``.

    Args:
        run: run folder, or a folder of runs (the newest is taken).
        greedy: the most probable action, else one drawn with ``seed``.

    Raises:
        UserError: there is no run, or no complete checkpoint in it.
    """
    from offbeat.load import load as load_run

    return load_run(run, greedy=greedy, seed=seed, device=device)


def evaluate(run: str | Path, *, episodes: int = 10, policy: str | None = None, seed: int = 0) -> Evaluation:
    """Play whole episodes with a run's newest weights and score them by raw reward.

    ``policy``: ``greedy`` or ``sampled``; None: as the run's own evaluations.
    """
    from offbeat.evaluate import evaluate_run
    from offbeat.runs import find_run

    return evaluate_run(find_run(run), episodes, policy, seed)


def _flat(overrides: dict[str, Any]) -> list[tuple[str, Any]]:
    """Overrides as (full name, value) pairs."""
    pairs = []
    for name, value in overrides.items():
        name = name.replace("__", ".")
        if isinstance(value, dict):
            pairs += [(f"{name}.{key}", item) for key, item in value.items()]
        else:
            pairs.append((name, value))
    return pairs
