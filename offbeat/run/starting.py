"""What a run with processes needs of the program that starts it: they import its main module and what it hands over."""

from __future__ import annotations

import ast
import multiprocessing
import sys
from collections.abc import Mapping
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import Any

from offbeat.errors import UserError, called

INLINE = "or use engine='inline', which starts none"


def check_start(own: Mapping[str, Any], *env_ids: str) -> None:
    """Raise ``UserError`` where the processes of a run would not come up, or could not make what the user hands over.

    Everything is looked for here, in the process that starts them, before a folder is made. ``env_ids``: of the run.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "a process of a run has come upon the call that starts the run: write it below "
            "if __name__ == '__main__': in your script"
        )
    line = unguarded_line()
    if line:
        raise UserError(
            f"{Path(_main_file()).name}, line {line}: the processes of a run import this script, and would start runs "
            f"of their own; put the call below if __name__ == '__main__':, {INLINE}"
        )
    for name, value in own.items():
        if value is not None:
            _check_travels(name, value)
    for env_id in env_ids if own.get("env_factory") is None else ():
        _check_registered(env_id)


def _check_travels(name: str, value: Any) -> None:
    """Refuse an object that processes could not be handed, or would not find where it is defined."""
    try:
        ForkingPickler.dumps(value)
    except Exception as error:
        raise UserError(
            f"{name}={value!r} cannot be handed to the processes of the roles ({type(error).__name__}: {error}); "
            f"define it at the top of a module, {INLINE}"
        ) from error
    inner = value
    while isinstance(inner, partial):
        inner = inner.func
    module = getattr(inner, "__module__", None) or type(inner).__module__
    if module == "__main__" and not Path(_main_file() or ".").is_file():
        raise UserError(
            f"{name}={called(value)} is defined in a notebook or on standard input, which other processes cannot "
            f"import; put it into a .py file and import it from there, {INLINE}"
        )


def _check_registered(env_id: str) -> None:
    """Refuse an id that only this program has registered with Gymnasium, with a class that no process could import."""
    import gymnasium

    spec = gymnasium.registry.get(env_id)
    for name in ("entry_point", "vector_entry_point") if spec is not None else ():
        entry: Any = getattr(spec, name)
        if entry is None or (isinstance(entry, str) and not entry.startswith("__main__")):
            continue
        if isinstance(entry, str):
            entry = getattr(sys.modules["__main__"], entry.partition(":")[2], None)
        _check_travels(f"the environment {env_id!r} that you registered, {name}", entry)


def unguarded_line() -> int:
    """The line of the script that is being run where this call began, if it lies below no main guard; 0: all is well.

    Programs without a script (notebooks, standard input, ``-c``) are imported by nobody.
    """
    path, frame = _main_file(), _main_frame()
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if frame is None or not path or not Path(path).is_file() or (spec and spec.name.endswith("__main__")):
        return 0
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return 0
    line = frame.f_lineno
    guards = [node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]
    guarded = any(node.lineno <= line <= (node.end_lineno or line) for node in guards)
    return 0 if guarded else line


def _main_frame() -> FrameType | None:
    """The frame of the main module's own code, if this call began there."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            return frame
        frame = frame.f_back
    return None


def _main_file() -> str:
    return str(getattr(sys.modules["__main__"], "__file__", None) or "")
