"""Each file of the library's inner packages has tests, and the repository's own files are there."""

from __future__ import annotations

import os
import re

from tests.house_rules.source import ROOT, library, listed

INNER = (
    "algorithms", "networks", "agents", "replay", "envs", "storage", "acting", "runtime", "config", "run", "scoring",
    "serving", "report",
)  # fmt: skip


def test_every_inner_file_has_a_test_or_is_imported_by_one():
    texts = [file.read_text() for file in (ROOT / "tests").rglob("*.py")]
    untested = []
    for module in library():
        if module.path.endswith("__init__.py") or module.name.split(".")[1] not in INNER:
            continue
        package, stem = module.name.rsplit(".", 1)
        mirrored = ROOT / "tests" / package.removeprefix("offbeat.").replace(".", "/") / f"test_{stem}.py"
        named = re.compile(
            rf"\b{re.escape(module.name)}\b|from {re.escape(package)} import (\([^)]*|[^\n(]*)\b{stem}\b"
        )
        if not mirrored.exists() and not any(named.search(text) for text in texts):
            untested.append(f"{module.path}: no {mirrored.relative_to(ROOT)}, and no test imports it")
    assert not untested, listed(untested)


def test_contributing_says_what_goes_into_every_folder():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("| it is | it goes to |") : text.index("## Rules that tests enforce")]
    folders = [path.name for path in (ROOT / "offbeat").iterdir() if (path / "__init__.py").exists()]
    assert [name for name in folders if f"`{name}/" not in table] == []
    named = re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", table)
    assert [name for name in named if "new" not in name and not (ROOT / "offbeat" / name).exists()] == []


def test_the_two_commands_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("train", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.M)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
