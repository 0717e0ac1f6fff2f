"""Every option does something: each field of each ``*Config`` dataclass is read where the work is done."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict

from tests.house_rules.source import Module, library, listed, parse

NO_READERS = {f"offbeat.config.{name}" for name in ("run_config", "options", "schema", "validation")}
"""They handle every option alike, or only look at its range: what they read is not used yet."""
ONLY_TOLD = {"RunConfig.preset"}
"""Options that do nothing but tell a reader of config.toml where it came from."""


def config_fields(modules: tuple[Module, ...]) -> dict[str, dict[str, str]]:
    """Class -> field -> annotation, of every dataclass whose name ends in Config."""
    found = {}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
                found[node.name] = {ast.unparse(item.target): ast.unparse(item.annotation) for item in fields}
    return found


def owners(modules: tuple[Module, ...], classes: dict[str, dict[str, str]]) -> dict[str, set[str]]:
    """Name of a field, argument or variable -> the Config classes that its annotation or assignment names."""
    held: dict[str, set[str]] = defaultdict(set)

    def hold(name: str, annotation: str) -> None:
        held[name] |= {cls for cls in classes if cls in annotation}

    for fields in classes.values():
        for name, annotation in fields.items():
            hold(name, annotation)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.arg) and node.annotation is not None:
                hold(node.arg, ast.unparse(node.annotation))
            elif isinstance(node, ast.AnnAssign):
                hold(ast.unparse(node.target).split(".")[-1], ast.unparse(node.annotation))
    for module in modules:  # settings = config.learner: then settings is held as learner is
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
                for target in node.targets:
                    held[ast.unparse(target).split(".")[-1]] |= held.get(node.value.attr, set())
    return held


def unread(modules: tuple[Module, ...]) -> list[str]:
    """Fields that nothing reads. A name that several classes share must be read from something that holds the class."""
    classes = config_fields(modules)
    held = owners(modules, classes)
    shared = Counter(name for fields in classes.values() for name in fields)
    read: set[tuple[str, str]] = set()
    for module in modules:
        if module.name in NO_READERS:
            continue
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
                continue
            base = ast.unparse(node.value).split(".")[-1].split("[")[0].split("(")[0]
            for cls, fields in classes.items():
                if node.attr in fields and (shared[node.attr] == 1 or cls in held.get(base, ())):
                    read.add((cls, node.attr))
    return [f"{cls}.{name}" for cls, fields in classes.items() for name in fields if (cls, name) not in read]


def test_every_option_is_read():
    found = [name for name in unread(library()) if name not in ONLY_TOLD]
    assert not found, listed(found)


def test_an_option_that_nothing_reads_is_found():
    text = """
class ActorConfig:
    threads: int = 1
    batch: int = 0
class LearnerConfig:
    threads: int = 1
    rate: float = 0.1
class RunConfig:
    actor: ActorConfig
    learner: LearnerConfig
def work(config: RunConfig):
    settings = config.actor
    return settings.threads, config.learner.rate
"""
    assert unread((parse("offbeat.m", "m.py", text),)) == ["ActorConfig.batch", "LearnerConfig.threads"]
    assert "LearnerConfig.rate" in unread((parse("offbeat.config.validation", "m.py", text),))
