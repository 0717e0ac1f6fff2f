"""How many files one reads from the command line to the gradient; and that role files know nothing of their engine."""

from __future__ import annotations

import importlib
import json
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from offbeat.agents import impala
from offbeat.cli import main
from offbeat.run.train import train
from offbeat.runtime.process import RoleProcess
from offbeat.runtime.topology import topology
from offbeat.types import UNROLL, EnvSpec, LossOutput, Unroll
from tests.house_rules.source import ROOT, Module, imports, library, listed, parse
from tests.runtime.parts import small_config

INLINE, PROCESSES = 6, 8
OPTIONS = ["impala-catch", "--total-frames", "640", "--evaluation.at_end", "false", "--log.tensorboard", "false"]
OF_ENGINES = {"shm", "world", "params", "inbox", "batches", "writer", "link", "process", "child", "supervisor",
              "conductor", "engines", "local_services", "master", "mirror", "rebuilding", "spans",
              "spawning"}  # fmt: skip
"""Modules of the runtime that know processes, shared memory, or who else there is."""


def files_here() -> list[str]:
    """Files of the library on the stack, in the order in which they call each other."""
    paths = [Path(frame.filename) for frame in traceback.extract_stack()]
    ours = [str(path.relative_to(ROOT / "offbeat")) for path in paths if path.is_relative_to(ROOT / "offbeat")]
    return list(dict.fromkeys(ours))


class Noting(impala.Agent):
    """Writes down from where its gradient is taken."""

    def __init__(self, config: Any, spec: EnvSpec, device: Any = "cpu", to: Path | None = None) -> None:
        super().__init__(config, spec, device)
        self._to = to

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """The agent's own."""
        output = super().loss(batch, progress)
        if self._to is not None and not self._to.exists():
            output.total.register_hook(self._note)
        return output

    def _note(self, gradient: torch.Tensor) -> None:
        assert self._to is not None
        self._to.write_text(json.dumps(files_here()))


def test_six_files_lead_to_the_gradient_through_the_inline_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    backward = torch.Tensor.backward

    def noting(tensor: torch.Tensor, *arguments: Any, **options: Any) -> None:
        seen.extend(name for name in files_here() if name not in seen)
        backward(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "backward", noting)
    assert main(["train", *OPTIONS, "--engine", "inline", "--out", str(tmp_path / "run")]) == 0
    assert {"cli.py", "runtime/engines/inline.py", "runtime/learner.py"} <= set(seen)
    print(f"to the gradient inline  {len(seen)} files (at most {INLINE}): {', '.join(seen)}")
    assert len(seen) <= INLINE, seen


def test_eight_files_lead_to_the_gradient_through_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = RoleProcess.__init__

    def noting(process: RoleProcess, *arguments: Any, **options: Any) -> None:
        start(process, *arguments, **options)
        started.extend(name for name in (*files_here(), "runtime/process.py") if name not in started)

    monkeypatch.setattr(RoleProcess, "__init__", noting)
    assert main(["train", *OPTIONS, "--engine", "local", "--out", str(tmp_path / "one")]) == 0
    note = tmp_path / "stack.json"
    train(small_config(engine="local", out=str(tmp_path / "two")), agent_factory=partial(Noting, to=note))
    within = json.loads(note.read_text())
    assert {"cli.py", "runtime/engines/local.py"} <= set(started)
    assert {"runtime/child.py", "runtime/learner.py"} <= set(within)
    both = list(dict.fromkeys([*started, *within]))
    print(f"to the gradient local   {len(both)} files (at most {PROCESSES}): {', '.join(both)}")
    assert len(both) <= PROCESSES, both


def told_of_engines(module: Module) -> list[str]:
    """Imports of what only engines know."""
    names = [(line, name.removeprefix("offbeat.runtime.")) for line, name in imports(module)]
    return [f"{module.path}:{line}: imports {name}" for line, name in names if name.split(".")[0] in OF_ENGINES]


def test_role_files_know_no_process_no_shared_memory_and_no_socket() -> None:
    config = small_config(engine="local", actor__inference="server")
    roles = {importlib.import_module(row.build.partition(":")[0]).__name__ for row in topology(config, UNROLL).roles}
    assert len(roles) == 4
    modules = [
        module for module in library() if module.name in {*roles, "offbeat.runtime.policy", "offbeat.runtime.host"}
    ]
    assert not (wrong := [line for module in modules for line in told_of_engines(module)]), listed(wrong)
    for module in modules:
        used = {name.split(".")[0] for _, name in imports(module)}
        assert not used & {"multiprocessing", "socket", "mmap", "os"}, module.path
        assert "RunConfig" not in module.text, f"{module.path} is handed its own section"
    cheat = parse("offbeat.runtime.x", "x.py", "def f():\n    from offbeat.runtime.shm import Bell")
    assert len(told_of_engines(cheat)) == 1
