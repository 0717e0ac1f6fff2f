"""What the documents show works: code imports, TOML parses, command lines are understood, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from offbeat.cli import COMMANDS
from offbeat.commands.arguments import one_preset, scan
from offbeat.config.presets import list_presets
from tests.house_rules.source import ROOT, listed

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
by_name = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))


def blocks(document: Path, language: str) -> list[str]:
    """Code blocks of one language ('' for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.M | re.S)
    return [text for name, text in found if name == language]


def commands(document: Path) -> list[list[str]]:
    """Command lines of offbeat, without those that stand for several (``PRESET``, ``[...]``, ``RUN``)."""
    text = document.read_text()
    lines = [line for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()]
    lines += re.findall(r"`(offbeat [^`]+)`", text)
    found = [re.split(r"\s+#", line)[0].strip() for line in lines if line.startswith("offbeat ")]
    return [shlex.split(line)[1:] for line in found if not re.search(r"\b[A-Z]{3,}\b|[\[\]|…]|\.\.\.", line)]


@by_name
def test_python_blocks_import_what_exists(document):
    own = set(re.findall(r"^# (\w+)\.py$", document.read_text(), re.M))  # files that the document has one write
    for block in blocks(document, "python"):
        tree = ast.parse(block)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        imports = [node for node in imports if getattr(node, "module", None) not in own]
        if "import onnxruntime" in block:
            pytest.importorskip("onnxruntime")
        if "import rtgym" in block:
            pytest.importorskip("rtgym")
        exec(compile(ast.Module(imports, []), str(document), "exec"), {})


@by_name
def test_toml_blocks_parse(document):
    for block in blocks(document, "toml"):
        tomllib.loads(block)


@by_name
def test_command_lines_are_understood(document):
    for name, *arguments in commands(document):
        assert name in COMMANDS, f"offbeat {name}"
        if name == "train" and arguments != ["--help"]:
            scanned = scan(arguments, own=("from",))
            preset = one_preset(scanned, "train")
            if preset in list_presets() or document.name == "README.md":  # elsewhere it may be the reader's own
                scanned.config(preset)


def test_command_lines_are_found():
    assert ["verify", "resume", "debug"] in commands(ROOT / "README.md")


@by_name
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    broken = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert not broken, listed(broken)


@by_name
def test_make_targets_exist(document):
    makefile = (ROOT / "Makefile").read_text()
    code = "\n".join([*re.findall(r"`[^`\n]+`", document.read_text()), *blocks(document, "")])
    targets = re.findall(r"(?:^|[`\s])make ([a-z][a-z-]+)\b", code, re.M)
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.M)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/presets.md"])
def test_presets_in_tables_exist(page):
    named = re.findall(r"^\| `([a-z0-9-]+)` \| [^|]+ \|", (ROOT / page).read_text(), re.M)
    known = list_presets()
    assert len([name for name in named if name in known]) > 20
    assert [name for name in named if name not in known and "-" in name and not name.startswith("-")] == []
