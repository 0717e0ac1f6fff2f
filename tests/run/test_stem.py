"""Runs that begin with a pretrained stem, and keep parts of it as they are; and a stem of the original's, converted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

import offbeat
from offbeat.agents.make import make_agent
from offbeat.cli import main
from offbeat.config.run_config import RunConfig, apply_overrides, read_config
from offbeat.envs.registry import env_spec
from offbeat.errors import UserError
from offbeat.networks.flat import flat_spec
from offbeat.networks.stem import check_stem, stem_of
from offbeat.networks.torsos import Torso
from offbeat.run.stem import with_stem
from offbeat.runtime.stem import read_stem
from offbeat.storage.checkpoint import find, load, load_weights
from offbeat.types import ArraySpec
from tests.zoo.small import Small

PICTURE = spaces.Box(0, 255, (3, 8, 8), np.uint8)
FRAMES = 120


class Pictures(Small):
    """Shows random pictures."""

    def __init__(self) -> None:
        super().__init__(PICTURE)


class Larger(Small):
    """Shows larger ones."""

    def __init__(self) -> None:
        super().__init__(spaces.Box(0, 255, (3, 10, 10), np.uint8))


def train(folder: Path, env: Any = Pictures, **options: Any) -> Any:
    """A short run on pictures, without a core."""
    given: dict[str, Any] = {
        "total_frames": FRAMES, "device": "cpu", "engine": "inline", "out": str(folder), "seed": 1,
        "actor": {"envs_per_worker": 4}, "evaluation": {"every_frames": 0, "at_end": False},
        "log": {"tensorboard": False}, "agent": {"torso": "minatar", "feature_size": 8},
    }  # fmt: skip
    learner = {"batch_size": 4, "unroll_length": 5, "learning_rate": 0.01, "schedule": "constant"}
    more = options.pop("learner", {})
    return offbeat.train("debug", env_factory=env, learner=learner | more, **(given | options))


@pytest.fixture(scope="module")
def stem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trains a stem, with a core that others have not."""
    folder = tmp_path_factory.mktemp("stem") / "stem"
    agent = {"torso": "minatar", "feature_size": 8, "core": "lstm", "core_size": 4}
    made: Path = train(folder, seed=5, agent=agent).run
    return made


def changed(run: Path, stem: Path) -> set[str]:
    """Names of the torso's weights that are not those of the stem."""
    ours, theirs = load_weights(run)[0], load_weights(stem)[0]
    names = [name for name in ours if name.startswith("torso.")]
    assert names
    return {name for name in names if not torch.equal(ours[name], theirs[name])}


CONV = {"torso.trunks.0.0.weight", "torso.trunks.0.0.bias"}
FC = {"torso.image_layer.weight", "torso.image_layer.bias"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_what_is_frozen_stays_as_the_stem_has_it(optimizer: str, precision: str, stem: Path, tmp_path: Path) -> None:
    options = {"optimizer": optimizer, "precision": precision, "epsilon": 1e-4, "stem": str(stem)}
    made = train(tmp_path / "run", learner=options | {"freeze_conv": True, "freeze_fc": True})
    assert made.updates > 3
    assert changed(made.run, stem) == set()
    part = load(find(made.run))[0]["learner"]
    config = read_config(made.run / "config.toml")
    network = make_agent("impala", config.agent, env_spec(config.env, Pictures), "cpu").network
    kept = {"adam": ("exp_avg", "exp_avg_sq"), "rmsprop": ("square_avg",)}[optimizer]
    slots = [np.asarray(part[f"optimiser/{name}"]) for name in kept]
    for entry in flat_spec(network):
        moved = [bool(slot[entry.offset : entry.offset + entry.size].any()) for slot in slots]
        assert moved == [not entry.name.startswith("torso.")] * len(slots), entry.name


@pytest.mark.parametrize(
    ("options", "trained"), [({"freeze_conv": True}, FC), ({"freeze_fc": True}, CONV), ({}, CONV | FC)]
)
def test_the_rest_is_trained(options: dict[str, Any], trained: set[str], stem: Path, tmp_path: Path) -> None:
    made = train(tmp_path / "run", learner={"stem": str(stem), "epsilon": 1e-4, **options})
    assert changed(made.run, stem) == trained


def test_a_run_begins_with_the_stem_and_otherwise_with_its_seed(stem: Path, tmp_path: Path) -> None:
    still = {"learning_rate": 0.0}
    own = load_weights(train(tmp_path / "own", learner=still).run)[0]
    whole = train(tmp_path / "whole", learner=still | {"stem": str(stem)}).run
    assert changed(whole, stem) == set()
    without = train(tmp_path / "without", learner=still | {"stem": str(stem), "stem_fc": False}).run
    assert changed(without, stem) == FC
    for run, names in ((whole, own.keys() - CONV - FC), (without, own.keys() - CONV)):
        found = load_weights(run)[0]
        assert all(torch.equal(found[name], own[name]) for name in names)
    assert read_config(whole / "config.toml").learner.stem == str(stem)
    assert f"stem: 5,064 weights from {stem}" in (whole / "run.log").read_text()


def test_a_resumed_run_stays_frozen_and_needs_the_stem_no_more(stem: Path, tmp_path: Path) -> None:
    there = tmp_path / "copy"
    there.mkdir()
    checkpoint = find(stem).path
    file = there / "stem.safetensors"
    file.write_bytes((checkpoint / "learner.safetensors").read_bytes())
    frozen = {"stem": str(file), "freeze_conv": True, "freeze_fc": True}
    made = train(tmp_path / "run", learner=frozen)
    file.unlink()
    before = load_weights(made.run)[0]
    again = offbeat.resume(made.run, 2 * FRAMES, env_factory=Pictures)
    assert again.updates > made.updates and changed(again.run, stem) == set()
    after = load_weights(again.run)[0]
    assert any(not torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(UserError, match=r"learner\.freeze_conv cannot be another when a run goes on"):
        offbeat.resume(made.run, 3 * FRAMES, env_factory=Pictures, learner__freeze_conv=False)


def test_processes_get_it_too_and_it_goes_before_all_weights_of_another_run(stem: Path, tmp_path: Path) -> None:
    other = train(tmp_path / "other", seed=9).run
    frozen = {"stem": str(stem), "freeze_conv": True}
    learner = frozen | {"learning_rate": 0.0}
    made = train(tmp_path / "run", engine="local", from_run=other, with_optimiser=True, learner=learner).run
    assert changed(made, stem) == set()
    rest = {name: value for name, value in load_weights(made)[0].items() if not name.startswith("torso.")}
    assert all(torch.equal(value, load_weights(other)[0][name]) for name, value in rest.items())
    steps = [int(load(find(run))[0]["learner"]["optimiser/step"]) for run in (other, made)]
    assert steps[1] > steps[0] > 0, "its optimiser went on from there"


def test_notebooks_get_it(stem: Path) -> None:
    config = {"torso": "minatar", "feature_size": 8}
    captured = offbeat.capture(
        "debug", batches=1, env_factory=Pictures, agent=config, device="cpu", stem=str(stem), learner__freeze_conv=True,
        learner__batch_size=4, learner__unroll_length=5, actor__envs_per_worker=4,
    )  # fmt: skip
    weights, there = captured.agent.network.state_dict(), load_weights(stem)[0]
    assert all(torch.equal(weights[name], there[name]) for name in CONV | FC)


@pytest.mark.parametrize(
    ("env", "agent", "learner", "says"),
    [
        (Larger, {}, {}, r"image_layer\.weight is \[8, 576\] there and \[8, 1024\] here"),
        (Pictures, {"feature_size": 9}, {}, r"is \[8, 576\] there and \[9, 576\] here"),
        (Pictures, {"torso": "mlp"}, {}, r"is t?here, and is not t?here; agent\.torso must be"),
        (Pictures, {"torso": "mlp"}, {"freeze_conv": True}, r"freeze_conv=true has no use: .* no convolutions"),
        (Pictures, {}, {"stem_fc": False, "freeze_fc": True}, r"freeze_fc=true with learner\.stem_fc=false"),
        (Pictures, {}, {"stem": "", "freeze_conv": True}, r"learner\.freeze_conv=true without a stem"),
        (Pictures, {}, {"stem": "nowhere"}, r"'nowhere' is no run folder: it does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(
    env: Any, agent: dict[str, Any], learner: dict[str, Any], says: str, stem: Path, tmp_path: Path
) -> None:
    options = {"agent": {"torso": "minatar", "feature_size": 8} | agent, "learner": {"stem": str(stem)} | learner}
    with pytest.raises(UserError, match=says):
        train(tmp_path / "run", env, **options)
    assert not (tmp_path / "run").exists()


def test_the_command_line_has_a_short_form(stem: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "debug", "--env", "tests.run.test_stem:Pictures", "--out", str(tmp_path / "run")]
    arguments += ["--agent.torso", "minatar", "--agent.feature-size", "8", "--total-frames", "40", "--engine", "inline"]
    assert main([*arguments, "--stem", str(stem.parent), "--learner.freeze-conv"]) == 0
    said = capsys.readouterr().out
    assert f"stem: 5,064 weights from {stem}" in said and "not trained: 448 weights, torso.trunks" in said
    assert with_stem(apply_overrides(RunConfig(), [("stem", str(stem.parent))]), (None, False)).learner.stem == str(
        stem
    )


class Original(nn.Module):
    """The vision of the original as its checkpoints name it: three stages of a convolution and two residual blocks."""

    def __init__(self, channels: int, flat: int) -> None:
        super().__init__()
        stages, blocks = [], {1: [], 2: []}  # type: ignore[var-annotated]
        for width in (16, 32, 32):
            stages.append(nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1), nn.MaxPool2d(3, 2, 1)))
            for found in blocks.values():
                convolutions = (nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))
                found.append(nn.Sequential(nn.ReLU(), next(convolutions), nn.ReLU(), next(convolutions)))
            channels = width
        self.feat_convs = nn.ModuleList(stages)
        self.resnet1, self.resnet2 = nn.ModuleList(blocks[1]), nn.ModuleList(blocks[2])
        self.fc, self.policy = nn.Linear(flat, 256), nn.Linear(256, 15)

    def forward(self, picture: Tensor) -> Tensor:
        """[B, C, H, W] of bytes -> features [B, 256]."""
        x = picture.float() / 255.0
        for stage, first, second in zip(self.feat_convs, self.resnet1, self.resnet2, strict=True):
            x = stage(x)
            x = x + first(x)
            x = x + second(x)
        return functional.relu(self.fc(functional.relu(x).flatten(1)))


def test_a_stem_of_the_original_is_converted_outside_and_sees_the_same(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "stem.md").read_text()
    (script,) = re.findall(r"^```python\n# convert_stem\.py\n(.*?)^```$", text, re.M | re.S)
    (tmp_path / "convert_stem.py").write_text(script)
    torch.manual_seed(3)
    original = Original(3, 32 * 9 * 12).eval()
    saved = {"model_state_dict": original.state_dict(), "flags": {"hidden_size": 256}, "stats": {"step": 5}}
    torch.save(saved, tmp_path / "model.tar")
    arguments = [sys.executable, "convert_stem.py", "model.tar", "stem.safetensors", "9", "12"]
    subprocess.run(arguments, cwd=tmp_path, check=True, timeout=60)
    picture = ArraySpec((3, 72, 96), "uint8")
    torso = Torso({"observation": picture}, "resnet").eval()
    holder = nn.ModuleDict({"torso": torso})
    stem = read_stem(tmp_path / "stem.safetensors", fc=True)
    check_stem(stem, holder, fc=True, source="stem.safetensors")
    assert stem.keys() == stem_of(holder.state_dict(), fc=True).keys()
    holder.load_state_dict(stem)
    shown = torch.randint(0, 256, (4, 3, 72, 96), dtype=torch.uint8)
    with torch.no_grad():
        features = torso({"observation": shown.unsqueeze(0)})[0]
        torch.testing.assert_close(features, original(shown), rtol=1e-4, atol=1e-5)
        other = Torso({"observation": picture}, "resnet").eval()({"observation": shown.unsqueeze(0)})[0]
        assert not torch.allclose(other, original(shown), rtol=0.1)
