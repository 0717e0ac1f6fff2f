"""Short realtime runs of an agent whose actions follow from what it sees, and what their streams must then hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offbeat.config.run_config import RunConfig, apply_overrides, from_dict
from offbeat.envs.counting import NUM_ACTIONS, counting_reward
from offbeat.runtime.realtime_books import DECISION
from offbeat.storage.checkpoint import find, load
from offbeat.types import OBSERVATION, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, ItemSpec, LossOutput

DISCOUNT = 0.75
CLOCKS = {"virtual": "inline", "wall": "local"}


class DecidingAgent:
    """Learns nothing; never does nothing, which the default behaviour does."""

    def __init__(self, config: Any, spec: EnvSpec, device: Any = "cpu") -> None:
        self.config, self.spec = config, spec
        self.network: nn.Module = nn.ParameterDict({"updates": nn.Parameter(torch.zeros(33))}).to(device)
        self.discount, self.wants_last, self.items = DISCOUNT, False, ItemSpec("transition")

    def initial_state(self, batch: int) -> CoreState:
        """None."""
        return {}

    def row_extras(self) -> dict[str, ArraySpec]:
        """What it saw, and the weights that it acted with."""
        return {"seen": ArraySpec((3,)), "weights": ArraySpec((2,))}

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """What ``action_of`` says."""
        seen = inputs.observation[OBSERVATION][0]
        action = torch.from_numpy(action_of(seen[:, 2].numpy().astype(np.int64)))
        weights: Tensor = self.network.get_parameter("updates")
        both = torch.stack([weights.min(), weights.max()]).expand(len(seen), 2)
        return ActOutput(action, {"seen": seen, "weights": both}, {})

    def loss(self, batch: Any, progress: float) -> LossOutput:
        """Count the update."""
        weights = self.network.get_parameter("updates")
        with torch.no_grad():
            weights += 1
        return LossOutput(weights.sum() * 0.0, {})


def action_of(row: np.ndarray) -> np.ndarray:
    """The action at row ``row`` of the environment: never 0."""
    return 1 + (5 * row + row // 3) % (NUM_ACTIONS - 1)


def realtime_config(out: Path, clock: str = "virtual", **overrides: Any) -> RunConfig:
    """Three inference processes of two and a half frames each; ``a__b`` stands for ``a.b``."""
    fps = 60.0 if clock == "virtual" else 100.0
    processes = 3 if overrides.get("realtime__mode", "async") == "async" else 1
    config = from_dict({
        "out": str(out), "device": "cpu", "engine": CLOCKS[clock], "total_frames": 400,
        "env": {"id": "toy/counting", "length": 12, "frame_skip": 1, "frame_stack": 1},
        "agent": {"name": "noop"},
        "actor": {"append_rows": 5},
        "learner": {"batch_size": 4, "learning_rate": 1.0, "prefetch": 0},
        "replay": {"capacity": 4000, "samples_per_insert": 1.0, "samplers": [{"kind": "uniform"}]},
        "realtime": {
            "fps": fps, "inference": processes, "inference_s": 2.5 / fps, "learn_s": 0.4 / fps, "jitter": 0.2,
        },
        "evaluation": {"every_frames": 0, "at_end": False, "episodes": 2, "envs": 1},
        "log": {"tensorboard": False, "dashboard": False, "every_s": 0.5},
    })  # fmt: skip
    return apply_overrides(config, [(key.replace("__", "."), value) for key, value in overrides.items()])


def streams_of(run: Path) -> dict[str, np.ndarray]:
    """The columns of the only stream, [rows, ...], oldest row first. It was not overwritten."""
    parts, _ = load(find(run))
    arrays = {name.removeprefix("streams/"): np.asarray(value) for name, value in parts["streams"].items()}
    rows = len(arrays["valid"])
    return {name: value for name, value in arrays.items() if len(value) == rows}


def check_rows(run: Path) -> dict[str, int]:
    """Every row's action, observation, reward, elapsed steps and discount belong together; counts of what was seen."""
    columns, kept = streams_of(run), np.load(run / "realtime" / "decisions.npy")
    acted = kept[~np.isnan(kept[:, DECISION.index("acted")])]
    source, frame = (acted[:, DECISION.index(name)].astype(int) for name in ("source", "frame"))
    seen, valid = columns[f"observation/{OBSERVATION}"].astype(int), columns["valid"]
    rows = np.flatnonzero(valid)
    # Rows that were acted on but not appended in a whole block are missing at the end, and those of the frames that
    # pass until the environment hears of the run's end: a second of them on a busy machine.
    acted_on = len(rows)
    assert acted_on <= len(source) <= acted_on + 100, (acted_on, len(source))
    found = {"rows": len(rows), "episodes": 0, "late": 0, "inaction": 0}
    for number, row in enumerate(rows.tolist()[:-1]):
        step, _, count = seen[row].tolist()
        assert (columns["extras/seen"][row] == seen[row]).all(), "stored is what the agent saw"
        assert columns["action"][row] == action_of(np.int64(count)), "and what it did"
        versions = columns["extras/weights"][row]
        assert versions[0] == versions[1] == columns["param_version"][row], f"torn weights {versions}"
        executes = frame[number] - (source[number] - step)  # both count frames of all episodes
        elapsed, base = int(columns["elapsed"][row]), count - step
        assert executes >= step
        assert elapsed >= 1
        played = np.arange(executes, executes + elapsed)
        actions = np.where(played == executes, columns["action"][row], 0)
        assert columns["reward"][row] == counting_reward(base + played, actions).sum(), "rewards follow the action"
        over = columns["terminated"][row]
        assert columns["discount"][row] == np.float32(0.0 if over else DISCOUNT**elapsed)
        if valid[row + 1]:
            assert not over
            assert not columns["truncated"][row]
            assert frame[number + 1] - frame[number] == elapsed, "to the next decision"
        else:
            assert over != columns["truncated"][row], "an episode ends in one way"
            assert seen[row + 1, 1] == seen[row, 1], "its own final observation"
            assert seen[row + 1, 0] <= executes + elapsed
            found["episodes"] += 1
            if row + 2 < len(seen) and seen[row + 2, 1] == seen[row, 1] + 1:
                assert seen[row + 2, 2] - seen[row + 2, 0] == base + executes + elapsed + 1, "to the episode's end"
        found["late"] = max(found["late"], executes - step)
        found["inaction"] += elapsed - 1
    firsts = np.flatnonzero(columns["first"])
    assert (~valid[firsts[1:] - 1]).all(), "an episode begins behind a final observation"
    return found
