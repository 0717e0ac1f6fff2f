"""Where a new run's first weights are read from: another run or one of its checkpoints; for a stem also a file of
safetensors.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from offbeat.errors import UserError
from offbeat.networks.stem import stem_of
from offbeat.runtime.learner_part import OPTIMISER
from offbeat.storage.checkpoint import WEIGHTS, CheckpointError, find, load, load_weights

ENDING = ".safetensors"
"""Of the files that are taken; nothing is unpickled."""


def read_start(source: Path, *, optimiser: bool) -> dict[str, Tensor]:
    """What a new run takes over of the run or checkpoint ``source``, by its names in the learner's part: the network's
    weights, and with ``optimiser`` the statistics of its optimiser. CheckpointError if there is no complete checkpoint.
    """
    if not optimiser:
        return {f"{WEIGHTS}{name}": value for name, value in load_weights(source)[0].items()}
    part = load(find(source, only=("learner",)))[0].get("learner", {})
    return {name: torch.as_tensor(value) for name, value in part.items() if name.startswith((WEIGHTS, OPTIMISER))}


def read_stem(source: Path, *, fc: bool) -> dict[str, Tensor]:
    """The weights of a torso in ``source``: name -> tensor; of a run those of its newest checkpoint.

    Args:
        source: run folder, folder of a checkpoint, or file; in files names may begin with ``weights/``, as in
            checkpoints.
        fc: with the layer behind the convolutions.

    Raises:
        UserError: there is nothing to read, or it is broken.
    """
    if source.is_file() or source.suffix == ENDING:
        return stem_of(_read_file(source), fc)
    try:
        return stem_of(load_weights(source)[0], fc)
    except CheckpointError as error:
        raise UserError(f"the stem cannot be read: {error}") from error


def _read_file(file: Path) -> dict[str, Tensor]:
    if file.suffix != ENDING:
        raise UserError(
            f"the stem {file} is no {ENDING} file, run or checkpoint; files of torch are pickles, which are not read "
            "here: docs/stem.md says how to convert them"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            return {name.removeprefix(WEIGHTS): opened.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"the stem {file} cannot be read: {' '.join(str(error).split())}") from error
