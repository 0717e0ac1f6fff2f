"""Short runs of the counting agent, and what their folders must say afterwards."""

from __future__ import annotations

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from offbeat.config.run_config import RunConfig, apply_overrides, from_dict
from offbeat.run.train import RunResult, train
from tests.conformance.counting_agent import Allowed, CountingAgent
from tests.conformance.counting_env import make_counting
from tests.conformance.replay_agent import ReplayingAgent
from tests.conformance.serial_engine import serialising

UNROLL = 5
ENGINES: dict[str, dict[str, Any]] = {
    "inline": {"engine": "inline"},
    "lockstep": {"deterministic": True},
    "free": {},
    "free-one-worker": {"actor__workers": 1, "actor__envs_per_worker": 8},
    "free-server": {"actor__inference": "server"},
    "free-two-servers": {"actor__inference": "server", "actor__workers": 3, "inference__device": "cpu,cpu"},
    "free-partial": {"actor__workers": 1, "actor__batch": 3},
}
"""Every engine and placement that the library has."""
SERIAL = {f"serial-{name}": options for name, options in ENGINES.items() if name != "inline"}
"""The same where all that crosses between roles is bytes."""


def engine_of(name: str) -> Any:
    """What has to be around a run of that engine."""
    return serialising() if name in SERIAL else nullcontext()


def counting_config(out: Path, **overrides: Any) -> RunConfig:
    """2 actors' worth of options: 4 environments each, batches of 4 unrolls x 5 rows; ``a__b`` stands for ``a.b``."""
    config = from_dict({
        "out": str(out),
        "device": "cpu",
        "total_frames": 4000,
        "env": {"id": "toy/counting", "length": 4},
        "agent": {"name": "noop"},
        "actor": {"workers": 2, "envs_per_worker": 4},
        "learner": {"batch_size": 4, "unroll_length": UNROLL, "learning_rate": 1.0},
        "evaluation": {"every_frames": 0, "at_end": False, "episodes": 2, "envs": 2},
        "log": {"tensorboard": False, "dashboard": False, "every_s": 0.5},
    })  # fmt: skip
    return apply_overrides(config, [(key.replace("__", "."), value) for key, value in overrides.items()])


def counting_run(out: Path, allowed: Allowed | None = None, **overrides: Any) -> RunResult:
    """Train the counting agent, which raises at the first violation; then check the books."""
    config = counting_config(out, **overrides)
    agent = partial(CountingAgent, allowed=allowed or Allowed())
    result = train(config, env_factory=make_counting, agent_factory=agent)
    check_books(result, config)
    return result


def replaying_config(out: Path, kind: str, **overrides: Any) -> RunConfig:
    """The same for agents that replay: by priority, drawn when it is asked for."""
    ratio = 1.5 * (3 if kind == "sequence" else 1)
    sampler = {"kind": "prioritised", "alpha": 1.0, "beta": 1.0, "final_beta": 1.0, "min_rows": 60}
    replay = {"capacity": 800, "samples_per_insert": ratio, "samplers": [sampler]}
    own = {"learner__batch_size": 8, "learner__prefetch": 0, "total_frames": 2000}
    given = {f"replay__{name}": value for name, value in replay.items()}
    return counting_config(out, **own | given | overrides)


def replaying_run(out: Path, kind: str, **overrides: Any) -> RunResult:
    """Train an agent that replays items of ``kind`` and raises at the first violation; then check the books."""
    config = replaying_config(out, kind, **overrides)
    result = train(config, env_factory=make_counting, agent_factory=partial(ReplayingAgent, kind=kind))
    assert result.finished
    assert result.frames >= config.total_frames
    rows = ledger(result.run)
    assert all(count >= 0 for count in rows.values()), rows
    assert rows["produced"] == rows["stored"] + rows["expired"] + rows["lost"] + rows["in_hand"], rows
    assert rows["expired"] > 0, "what is trained on was overwritten in time"
    learner = [line for line in records(result.run) if line["kind"] == "learner"]
    assert max(line["known"] for line in learner) > 0.3, "many were drawn by the priority that was fed back"
    assert 0.25 < learner[-1]["terminated"] < 0.75, "half of the episodes are truncated, the others terminate"
    assert learner[-1]["dropped_priorities"] <= 0.1 * 8 * result.updates
    return result


def check_books(result: RunResult, config: RunConfig) -> None:
    """The run ended by itself, the learner checked all it trained on, and the ledger closes to zero."""
    assert result.finished
    assert result.frames >= config.total_frames
    per_update = config.learner.batch_size * config.learner.unroll_length
    learner = [line for line in records(result.run) if line["kind"] == "learner"]
    assert learner[-1]["updates"] == result.updates
    trained = round(result.updates * per_update * config.replay.samplers[0].share)
    check_ledger(ledger(result.run), trained=trained)
    assert 0.5 * trained < result.agent_steps < trained, "final observations are rows and no steps"


def check_ledger(rows: dict[str, int], trained: int) -> None:
    """Every row is somewhere, and no count is negative."""
    assert all(count >= 0 for count in rows.values()), rows
    assert rows["produced"] == rows["stored"] + rows["expired"] + rows["lost"] + rows["in_hand"], rows
    parts = [rows[f"fifo0/{name}"] for name in ("trained", "pending", "skipped", "lost")]
    assert rows["produced"] == sum(parts), rows
    assert rows["fifo0/trained"] == trained, rows


def ledger(run: Path) -> dict[str, int]:
    """The ledger that the run wrote at its end."""
    (line,) = [line for line in records(run) if line["kind"] == "ledger"]
    common = ("time", "role", "kind", "frames", "agent_steps")
    return {name: value for name, value in line.items() if name not in common}


def records(run: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
