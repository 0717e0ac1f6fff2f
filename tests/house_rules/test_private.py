"""What other packages do not promise to keep is tried before it is used, where it is used."""

from __future__ import annotations

import ast
import re

from tests.house_rules.source import Module, imports, library, listed, parse

UNPROMISED = re.compile(r"(torch\.ops|numba\.core|llvmlite)\b|(torch|numba|numpy)\b.*\._(?!_)")
"""Beginnings of dotted names."""
SHORT = {"np": "numpy", "nn": "torch.nn", "functional": "torch.nn.functional"}


def private_names(module: Module) -> list[tuple[int, str]]:
    """(line, dotted name) of everything in torch, numba, numpy and llvmlite that they do not promise to keep."""
    found = list(imports(module))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            found.append((node.lineno, f"{SHORT.get(first, first)}.{rest}"))
    return [(line, name) for line, name in found if re.fullmatch(r"[\w.]+", name) and UNPROMISED.match(name)]


def untried(module: Module) -> list[str]:
    """Private names in a file that tries none: ``offbeat.errors.failure`` does."""
    tries = any(name == "offbeat.errors.failure" for _, name in imports(module))
    return [] if tries else [f"{module.path}:{line}: {name}" for line, name in private_names(module)]


def test_what_is_not_promised_is_tried():
    found = [line for module in library() for line in untried(module)]
    assert not found, listed(found)
    users = {module.path for module in library() if private_names(module)}
    assert users == {
        "offbeat/agents/joined_loss.py",
        "offbeat/networks/joined.py",
        "offbeat/networks/narrow.py",
        "offbeat/networks/rounded.py",
        "offbeat/replay/kernels.py",
    }


def test_what_is_not_tried_is_found():
    text = "import torch, numba.core.cgutils\nfrom llvmlite import ir\ntorch.ops.aten.add(1)\nnn._x\ntorch.add(1)"
    found = untried(parse("offbeat.m", "m.py", text))
    names = {line.split(": ")[1] for line in found}
    assert {"numba.core.cgutils", "llvmlite.ir", "torch.ops.aten.add", "torch.nn._x"} <= names
    assert "torch.add" not in names
    assert untried(parse("offbeat.m", "m.py", "from offbeat.errors import failure\n" + text)) == []
