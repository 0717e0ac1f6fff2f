"""A network as an ONNX file, which programs without torch run: with ONNX Runtime in any language that has it.

Tensors of the same names, shapes and dtypes go in and come out as in ``offbeat.run.export``, by their dotted names:
``observation.camera``, ``first``, ``state.h``. What the next row is given again is called ``next.state.h`` and
``next.last_action``, since a name may stand only once in such a file. The file's metadata hold ``offbeat.json``.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offbeat.errors import UserError, told
from offbeat.run.exported import DESCRIPTION, tensors

AGAIN = ("state", "last_action")
"""Outputs that are inputs of the next row."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What the extra ``onnx`` brings: torch writes with the first two, the last runs it."""
NEXT = "next."
"""How their names begin."""


def need_onnx() -> None:
    """UserError, in one line, where the packages of the extra ``onnx`` are not all there."""
    try:
        for package in PACKAGES:
            import_module(package)
    except Exception as error:  # of a package, of any class
        raise UserError(
            f"ONNX files need the packages onnx, onnxscript and onnxruntime ({told(error)}); install them with "
            "pip install 'offbeat[onnx]'"
        ) from error


def output_name(name: str) -> str:
    """What an output of ``offbeat.run.export`` is called in an ONNX file."""
    return f"{NEXT}{name}" if name.split(".")[0] in AGAIN else name


def save_onnx(
    program: torch.export.ExportedProgram, path: Path, inputs: list[str], outputs: list[str], about: dict[str, Any]
) -> None:
    """Write ``program`` to ``path``, one file.

    Args:
        inputs, outputs: dotted names of all tensors, in the program's order.
        about: the description; its outputs are renamed as the file's.
    """
    names = [output_name(name) for name in outputs]
    with _quiet():
        made = torch.onnx.export(
            program, dynamo=True, input_names=inputs, output_names=names, external_data=False, verbose=False
        )
    assert made is not None, "it was asked for a program"
    described = {output_name(name): text for name, text in about["outputs"].items()}
    made.model.metadata_props[DESCRIPTION] = json.dumps(about | {"outputs": described})
    made.save(path, external_data=False)


class OnnxFile:
    """An ONNX file that is called as the other files are: nested tensors in, nested tensors out."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name, those of ``state`` in a dictionary; of what is in ``inputs`` [1, B, ...]."""
        given = {path: _array(part) for name, value in inputs.items() for path, part in tensors(value, name)}
        found: dict[str, Any] = {"state": {}}
        for name, array in zip(self._names, self._session.run(self._names, given), strict=True):
            plain = name.removeprefix(NEXT)
            if plain.startswith("state."):
                found["state"][plain.removeprefix("state.")] = torch.from_numpy(array)
            else:
                found[plain] = torch.from_numpy(array)
        return found


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.contiguous().numpy()
    return array


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of packages that nobody asked for, and of its own future."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(before)
