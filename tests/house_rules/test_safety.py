"""No code runs out of files, no error is swallowed, nothing is left for later."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house_rules.source import ROOT, Module, imports, library, listed, parse

PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
CALLS = {"eval", "exec", "torch.load", "torch.save", "pickle.loads", "yaml.load", "os.system"}
LATER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")


def risky(module: Module) -> list[str]:
    """Ways in which data could become code."""
    found = [f"{module.path}:{line}: imports {name}" for line, name in imports(module) if name.split(".")[0] in PICKLES]
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        if ast.unparse(node.func) in CALLS:
            found.append(f"{module.path}:{node.lineno}: calls {ast.unparse(node.func)}")
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                found.append(f"{module.path}:{node.lineno}: allow_pickle")
            if keyword.arg == "shell" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True:
                found.append(f"{module.path}:{node.lineno}: a command through the shell")
    return found


def swallowed(module: Module) -> list[str]:
    """Handlers of every exception that do nothing, and ``suppress`` of every exception."""
    broad = {"Exception", "BaseException"}
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            names = {ast.unparse(kind) for kind in getattr(node.type, "elts", [node.type])} if node.type else broad
            idle = all(
                isinstance(item, ast.Pass | ast.Continue | ast.Break)
                or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
                or (isinstance(item, ast.Return) and (item.value is None or isinstance(item.value, ast.Constant)))
                for item in node.body
            )
            if names & broad and idle:
                found.append(f"{module.path}:{node.lineno}: swallows {', '.join(sorted(names & broad))}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "suppress":
            names = {ast.unparse(argument) for argument in node.args}
            if names & broad:
                found.append(f"{module.path}:{node.lineno}: suppresses {', '.join(sorted(names & broad))}")
    return found


def test_no_code_runs_out_of_files():
    found = [line for module in library() for line in risky(module)]
    assert not found, listed(found)


def test_no_exception_is_swallowed():
    found = [line for module in library() for line in swallowed(module)]
    assert not found, listed(found)


def test_nothing_is_left_for_later():
    files = [*(ROOT / "offbeat").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    files += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "Dockerfile", "pyproject.toml")]
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if LATER.search(line)
    ]
    assert not found, listed(found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from torch import load\nimport torch\ntorch.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "eval('1')",
        "import subprocess\nsubprocess.run('x', shell=True)",
    ],
)
def test_a_risk_is_found(text):
    assert len(risky(parse("m", "m.py", text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    ...",
        "try:\n    f()\nexcept (OSError, BaseException):\n    return_ = 1\n    pass".replace("return_ = 1\n    ", ""),
        "def g():\n    try:\n        f()\n    except Exception:\n        return None",
        "import contextlib\nwith contextlib.suppress(Exception):\n    f()",
    ],
)
def test_a_swallowed_exception_is_found(text):
    assert len(swallowed(parse("m", "m.py", text))) == 1
    assert swallowed(parse("m", "m.py", "try:\n    f()\nexcept OSError:\n    pass")) == []
