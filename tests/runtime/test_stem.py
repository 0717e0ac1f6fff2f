"""Reading the weights of a stem: from a run, one of its checkpoints, a file; and never from a pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from offbeat.errors import UserError
from offbeat.runtime.stem import read_stem
from offbeat.storage.checkpoint import begin, save

WEIGHTS = {"torso.trunks.0.0.weight": torch.ones(2), "torso.image_layer.bias": torch.zeros(3), "core.x": torch.ones(1)}


def run(folder: Path, steps: int = 5) -> Path:
    """A run with one checkpoint, whose weights are ``steps``, and the checkpoint ``best``, whose are ten times that."""
    parts = {f"weights/{name}": value * steps for name, value in WEIGHTS.items()}
    folder.mkdir(exist_ok=True)
    save(folder, steps, {"learner": parts | {"optimiser/step": torch.ones(())}}, {}, keep=3)
    draft = begin(folder, steps)
    draft.write("learner", {name: value * 10 for name, value in parts.items()})
    draft.commit({}, name="best")
    return folder


def test_from_a_run_and_its_checkpoints(tmp_path: Path) -> None:
    made = run(tmp_path / "run")
    stem = read_stem(made, fc=True)
    assert list(stem) == ["torso.image_layer.bias", "torso.trunks.0.0.weight"]
    assert stem["torso.trunks.0.0.weight"].tolist() == [5, 5]
    assert list(read_stem(made, fc=False)) == ["torso.trunks.0.0.weight"]
    best = read_stem(made / "checkpoints" / "best", fc=True)
    assert best["torso.trunks.0.0.weight"].tolist() == [50, 50]


def test_from_a_file_also_from_one_of_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "stem.safetensors"
    save_file(WEIGHTS, file)
    assert read_stem(file, fc=False)["torso.trunks.0.0.weight"].tolist() == [1, 1]
    part = run(tmp_path / "run") / "checkpoints" / "000000000005" / "learner.safetensors"
    assert read_stem(part, fc=False)["torso.trunks.0.0.weight"].tolist() == [5, 5]


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    pickle = tmp_path / "model.tar"
    torch.save({"model_state_dict": WEIGHTS}, pickle)
    with pytest.raises(UserError, match=r"model\.tar is no \.safetensors file, .*pickles, which are not read here"):
        read_stem(pickle, fc=True)
    broken = tmp_path / "stem.safetensors"
    broken.write_bytes(pickle.read_bytes())
    for path in (broken, tmp_path / "gone.safetensors"):
        with pytest.raises(UserError, match=f"the stem {path} cannot be read: ") as raised:
            read_stem(path, fc=True)
        assert "\n" not in str(raised.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the stem cannot be read: .*no complete checkpoint"):
        read_stem(tmp_path / "empty", fc=True)
