"""The list of all options of offbeat, read from the source: each dataclass field and the docstring below it.

Nothing is imported for it, so ``offbeat train --help`` and a misspelt option answer at once. ``make docs`` writes
docs/options.md with it. Those of installed packages are added in ``offbeat.config.known``.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.config.ranges import RANGES

PACKAGE = Path(__file__).parents[1]

SOURCES = (
    ("", "config/run_config.py", "RunConfig"),
    ("env", "envs/base.py", "EnvConfig"),
    ("eval_env", "envs/base.py", "EnvConfig"),
    ("valid_env", "envs/base.py", "EnvConfig"),
    ("final_env", "envs/base.py", "EnvConfig"),
    ("delay", "envs/delay_config.py", "DelayConfig"),
    ("actor", "runtime/actor.py", "ActorConfig"),
    ("inference", "runtime/inference.py", "InferenceConfig"),
    ("learner", "runtime/learner_config.py", "LearnerConfig"),
    ("replay", "replay/mixture.py", "ReplayConfig"),
    ("demonstrations", "replay/demonstrated.py", "DemonstrationsConfig"),
    ("evaluation", "runtime/evaluator.py", "EvaluationConfig"),
    ("validation", "runtime/validations.py", "ValidationConfig"),
    ("final", "acting/final_sets.py", "FinalConfig"),
    ("checkpoint", "storage/checkpoint.py", "CheckpointConfig"),
    ("log", "config/log.py", "LogConfig"),
    ("realtime", "runtime/realtime_config.py", "RealtimeConfig"),
    ("trace", "runtime/spans.py", "TraceConfig"),
)
"""Section -> file and class that define its options; the agents' are found in ``agents/``."""

SHORT = {"env": "env.id", "agent": "agent.name", "stem": "learner.stem"}
"""Short forms on the command line."""

FOLLOWERS = {"eval_env": "env", "valid_env": "eval_env", "final_env": "eval_env"}
"""Section of environments -> the one whose options it has and follows; those of ``env`` say what they mean."""
FOR = {"eval_env": "evaluations", "valid_env": "validations", "final_env": "the sets that a run ends with"}
"""What each of them is for."""


@dataclass(frozen=True)
class Option:
    """One field of the configuration."""

    name: str
    """Full name, e.g. ``learner.batch_size``."""
    default: str
    """As written in TOML."""
    values: str
    """Type, or the choices."""
    range: str
    """Allowed numbers, e.g. ``>= 1``; empty for others."""
    unit: str
    source: str
    text: str
    """What it means, without unit and source."""
    owner: str = ""
    """The agent or sampler that the option belongs to; empty for those of every run."""


@functools.cache
def all_options() -> tuple[Option, ...]:
    """Every option, section after section, then sampler after sampler and agent after agent."""
    options = [
        option
        for section, file, name in SOURCES
        for option in read_options(PACKAGE / file, name, section)
        if not (
            section == ""
            and (option.name in dict.fromkeys(s[0] for s in SOURCES) or option.name in ("agent", "preset"))
        )
        and option.name not in [f"{section}.delay" for section in ("env", *FOLLOWERS)]  # a section of its own
    ]
    for folder, section in (("replay", "replay.samplers.N"), ("agents", "agent")):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            if "Config" in _classes(path):
                options += read_options(path, "Config", section, path.stem)
    return tuple(options)


def read_options(path: Path, cls: str, section: str, owner: str = "") -> list[Option]:
    """The options that dataclass ``cls`` in the file ``path`` defines, under the name of their ``section``."""
    options: dict[str, Option] = {}
    for base in _bases(path, cls):
        options |= {option.name: option for option in read_options(*base, section, owner)}
    body = _classes(path)[cls].body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and not ast.unparse(node.annotation).startswith("ClassVar")
        ):
            doc = after.value.value if _is_text(after) else ""  # type: ignore[union-attr, attr-defined]
            key = "agent.name" if node.target.id == "agent_name" else node.target.id
            name = f"{section}.{key}" if section else key
            text = " ".join(str(doc).split())
            options[name] = make_option(name, ast.unparse(node.annotation), node.value, text, owner)
    return list(options.values())


def _bases(path: Path, cls: str) -> list[tuple[Path, str]]:
    """File and name of the classes of offbeat that ``cls`` extends, as ``from offbeat.x import ...`` brings them in."""
    found = []
    for base in _classes(path)[cls].bases:
        module, _, name = ast.unparse(base).rpartition(".")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("offbeat"):
                folder = PACKAGE.parent / Path(*node.module.split("."))
                names = [item.name for item in node.names]
                if module in names:  # from offbeat.agents import dqn: dqn.Config
                    found.append((folder / f"{module}.py", name))
                elif not module and name in names:
                    found.append((folder.with_suffix(".py"), name))
    return found


def make_option(name: str, annotation: str, default: ast.expr | None, doc: str, owner: str) -> Option:
    """One option from its type, its default and the docstring below it, as they are written."""
    doc, unit = _cut(doc, "Unit")
    doc, source = _cut(doc, "Source")
    text = doc.strip()
    choices = re.search(r"Literal\[(.*?)\]", annotation)
    words = re.findall(r"'([^']*)'", choices.group(1)) if choices else []
    number = re.match(r"(int|float) \| Literal", annotation)
    values = ", ".join(words) if words and not number else _readable(annotation)
    if number:
        values = " or ".join([number.group(1), *words])
    shown = "" if default is None else _toml(default)
    if name == "eval_env.life_loss":
        text += " Not copied from ``env``."
    elif (section := name.partition(".")[0]) in FOLLOWERS:
        leader, what = FOLLOWERS[section], FOR[section]
        shown, text = f"as {leader}", f"As of ``{leader}``, for {what}."
    return Option(name, shown, values, _range(name, values), unit, source, text, owner)


def ranged(name: str) -> str:
    """The option whose range an option has: environments have one, whichever they are for."""
    section, _, rest = name.partition(".")
    return f"env.{rest}" if section in FOLLOWERS else name


def _range(name: str, values: str) -> str:
    """The range that validation applies to an option; an agent's options state theirs in the text."""
    if values.split()[0] not in ("int", "float") or name.startswith("agent."):
        return ""
    low, high = RANGES.get(ranged(name.replace(".N.", ".")), (0, math.inf))
    if high == math.inf:
        return "" if low == -math.inf else f">= {low:g}"
    return f"{low:g} to {high:g}"


def _cut(doc: str, word: str) -> tuple[str, str]:
    """The text without its ``word: ...`` sentence, and that sentence's content."""
    found = re.search(rf"\s*\b{word}: (.*?)\.(?=\s+[A-Z`]|$)", doc)
    return (doc[: found.start()] + doc[found.end() :], found.group(1)) if found else (doc, "")


def _readable(annotation: str) -> str:
    """A type as users know it."""
    inner = annotation.replace("| None", "or none").strip()
    if inner.startswith("tuple["):
        item = inner[6:-1].split(",")[0].replace("SamplerConfig", "[[replay.samplers]]")
        return "list of " + ("text" if item == "str" else item)
    return {"bool": "true, false", "str": "text"}.get(inner, inner)


def _toml(node: ast.expr) -> str:
    """A default as TOML has it; calls (nested dataclasses) have none."""
    try:
        return written(ast.literal_eval(node))
    except ValueError:
        return "one fifo" if "fifo.Config" in ast.unparse(node) else ""


def written(value: Any) -> str:
    """A default as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(f'"{item}"' if isinstance(item, str) else str(item) for item in value) + "]"
    if isinstance(value, str):
        return f'"{value}"'
    return "none" if value is None else f"{value:_}" if isinstance(value, int) and value >= 10_000 else f"{value}"


@functools.cache
def _classes(path: Path) -> dict[str, ast.ClassDef]:
    """The classes at the top of a source file by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Full name -> what an option is called among these: the last part of its name, or more where another one ends so.

    ``env`` and ``agent`` stand for ``env.id`` and ``agent.name``, as on the command line.
    """
    names = list(names)
    found = {full: short for short, full in SHORT.items() if full in names}
    for name in names:
        parts = name.split(".")
        tails = [".".join(parts[place:]) for place in reversed(range(len(parts)))]
        others = [f".{other}" for other in names if other != name]
        alone = (tail for tail in tails if not any(other.endswith(f".{tail}") for other in others))
        found.setdefault(name, next(alone, name))
    return found


def heading_of(option: Option) -> str:
    """The heading that an option stands under."""
    found = option.name.rpartition(".")[0]
    if option.name == "agent.name" or not found:
        return "run"
    kind = "agent" if found == "agent" else "sampler"
    return f"{kind} {option.owner}" if option.owner else found


def markdown() -> str:
    """The text of docs/options.md."""
    lines = [
        "# Options", "",
        "Every option of a run, made from the source by `make docs`; edit the field's docstring instead of this file.",
        "In a preset, `learner.batch_size` is the key `batch_size` in the section `[learner]`; on the command line it",
        "is `--learner.batch_size 16` or `--learner.batch-size=16`. `--env ID`, `--agent NAME`: short for `--env.id`",
        "and `--agent.name`. `[eval_env]` has the keys of `[env]` and follows it, but for `life_loss` and what is set;",
        "`[valid_env]` and `[final_env]` follow `[eval_env]` likewise.",
    ]  # fmt: skip
    heading = None
    for option in all_options():
        if option.name.partition(".")[0] in FOLLOWERS:
            continue
        if heading_of(option) != heading:
            heading = heading_of(option)
            lines += ["", f"## {heading}", "", "| option | default | values | unit | meaning | source |"]
            lines += ["|---|---|---|---|---|---|"]
        values = option.values + (f", {option.range}" if option.range else "")
        cells = (f"`{option.name}`", f"`{option.default}`" if option.default else "", values, option.unit, option.text,
                 option.source)  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("``", "`").replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
