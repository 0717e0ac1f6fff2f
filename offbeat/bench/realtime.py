"""How well this machine keeps realtime: missed frames, spacing, overhead of the exchange, beside its own wake-ups."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.agents.make import make_agent
from offbeat.bench.wakeups import late_s, manager_s, ping_s
from offbeat.config.run_config import RunConfig
from offbeat.envs.registry import env_spec
from offbeat.errors import UserError
from offbeat.run.train import train
from offbeat.runtime.cpu_waits import steal_s
from offbeat.runtime.realtime_books import DECISION, FRAME, measured, overheads, unexplained
from offbeat.types import Inputs

FPS = 59.73
"""A Game Boy's frames per second."""
PINGS = 600


def bench_realtime(
    config: RunConfig, processes: Iterable[int], minutes: float, file: Path | None = None
) -> list[dict[str, float]]:
    """Run ``config`` on the wall clock with each of these numbers of inference processes, and print what came out.

    Before each run the machine's own wake-ups are measured, and the published exchange after the last.
    """
    fps = config.realtime.fps or FPS
    rows = []
    print(f"{config.env.id}, {config.agent_name}, {fps:g} frames per second, {minutes:g} minutes each", flush=True)
    print(f"bare processes beside it: {PINGS} wake-ups each; times in microseconds, p50 / p99", flush=True)
    for count in processes:
        rows.append(_one(config, count, fps, minutes))
        print(describe(rows[-1]), flush=True)
    theirs = manager_s(PINGS, _forward(config), 1 / fps)
    row = {"manager_p50_s": float(np.quantile(theirs, 0.5)), "manager_p99_s": float(np.quantile(theirs, 0.99))}
    print(f"the same exchange through manager proxies: overhead {_pair(theirs)}", flush=True)
    rows.append(row)
    if file is not None:
        file.write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def _one(config: RunConfig, count: int, fps: float, minutes: float) -> dict[str, float]:
    pings, late = ping_s(PINGS, 1 / fps), late_s(PINGS, 1 / fps)
    stolen = steal_s()
    with tempfile.TemporaryDirectory(prefix="offbeat-bench-") as folder:
        frames = max(1, round(minutes * 60 * fps)) * config.env.frame_skip
        realtime = replace(config.realtime, fps=fps, inference=count, mode="async", pad=count > 1)
        quiet = replace(config.log, dashboard=False, tensorboard=False)
        scores = replace(config.evaluation, every_frames=0, at_end=False)
        run = replace(config, engine="local", out=str(Path(folder) / "run"), total_frames=frames, log=quiet)
        result = train(replace(run, realtime=realtime, evaluation=scores))
        return read_run(result.run) | {
            "processes": count,
            "steal_s": steal_s() - stolen,
            "ping_p50_s": float(np.quantile(pings, 0.5)),
            "ping_p99_s": float(np.quantile(pings, 0.99)),
            "bare_late_p50_s": float(np.quantile(late, 0.5)),
            "bare_late_p99_s": float(np.quantile(late, 0.99)),
        }


def read_run(run: Path) -> dict[str, float]:
    """What a realtime run measured, from its folder."""
    decisions, frames = (np.load(run / "realtime" / f"{name}.npy") for name in ("decisions", "frames"))
    if not len(decisions):
        raise UserError(f"{run}: no action was published")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "realtime"][-1]
    queues = {line["role"]: line["run_queue_s"] for line in lines if line["kind"] == "realtime_actor"}
    late, missed = frames[:, FRAME.index("late")], frames[:, FRAME.index("missed")]
    over = overheads(decisions)
    waited = decisions[:, DECISION.index("published")] - decisions[:, DECISION.index("due")]
    return measured(decisions) | {
        "frames": float(len(frames)),
        "missed": float(missed.sum()),
        "worst_late_s": float(late.max()),
        "late_p50_s": float(np.quantile(late, 0.5)),
        "late_p99_s": float(np.quantile(late, 0.99)),
        "overhead_p50_s": float(np.quantile(over, 0.5)),
        "overhead_p99_s": float(np.quantile(over, 0.99)),
        "publish_late_p99_s": float(np.quantile(waited, 0.99)),
        "inaction": last["inaction"] / max(1, last["steps"]),
        "env_run_queue_s": float(last["run_queue_s"]),
        "actor_run_queue_s": float(sum(queues.values())),
        "missed_events": float(np.count_nonzero(missed)),
        "unexplained": float(len(unexplained(frames))),
    }


def describe(row: dict[str, float]) -> str:
    """One run as text."""

    def pair(name: str) -> str:
        return f"{row[f'{name}_p50_s'] * 1e6:.0f} / {row[f'{name}_p99_s'] * 1e6:.0f}"

    return "\n".join([
        f"N = {row['processes']:.0f}: {row['frames']:.0f} frames, {row['missed']:.0f} missed in "
        f"{row['missed_events']:.0f} events, {row['unexplained']:.0f} of them unexplained by playing, run queue and "
        f"steal (latest start {row['worst_late_s'] * 1e3:.1f} ms late); "
        f"frames left to the default behaviour {row['inaction']:.2%}",
        f"  spacing {row['spacing_s'] * 1e3:.2f} ms, CV {row['spacing_cv']:.3f}; staleness "
        f"{row['staleness']:.2f} frames; inference {row['inference_s'] * 1e3:.2f} ms",
        f"  overhead {pair('overhead')}; frames begin late {pair('late')}; bare wake-up {pair('bare_late')}, bare ping "
        f"{pair('ping')}",
        f"  kept waiting by this machine: steal {row['steal_s']:.2f} s (all processors), run queue "
        f"{row['env_run_queue_s']:.2f} s (environment), {row['actor_run_queue_s']:.2f} s (inference, summed)",
    ])  # fmt: skip


def _forward(config: RunConfig) -> Any:
    """One inference of the run's network, as a function without arguments."""
    import torch

    spec = env_spec(config.env)
    agent = make_agent(config.agent_name, config.agent, spec, "cpu", None, None)
    seen = {key: torch.from_numpy(part.zeros(1, 1)) for key, part in spec.observation.items()}
    inputs, state = Inputs(seen, torch.zeros(1, 1, dtype=torch.bool)), agent.initial_state(1)
    if hasattr(agent, "exploration"):
        inputs.epsilon = torch.zeros(1, 1)

    def forward() -> None:
        with torch.inference_mode():
            agent.act(inputs, state, None)

    torch.set_num_threads(1)
    forward()
    return forward


def _pair(seconds: np.ndarray) -> str:
    return f"{np.quantile(seconds, 0.5) * 1e6:.0f} / {np.quantile(seconds, 0.99) * 1e6:.0f}"
