"""Every option that can be given here: those of offbeat, and those of agents and samplers from installed packages.

The latter are asked of the packages, which imports them: only where there are some, and only once they are needed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

from offbeat.config.options import FOLLOWERS, SHORT, Option, all_options, heading_of, make_option, read_options, written
from offbeat.errors import nearest

SECTIONS = {"offbeat.agents": ("agent", "agent"), "offbeat.samplers": ("sampler", "replay.samplers.N")}
"""Group of entry points -> what they are, and the section of their options."""
NAMED = {"torso": "torsos", "env": "environments", "hook": "hooks"}
"""The other groups, ``offbeat.<key>s``: names without options, and what they are called."""


class Installed(NamedTuple):
    """What entry points of installed packages bring in."""

    options: tuple[Option, ...]
    """Of agents and samplers."""
    broken: tuple[str, ...]
    """One line for each agent or sampler that cannot be loaded."""


@functools.cache
def installed() -> Installed:
    """The options of agents and samplers of installed packages. Imports these packages."""
    options: list[Option] = []
    broken: list[str] = []
    own = {heading_of(option) for option in all_options()}
    for group, (kind, section) in SECTIONS.items():
        for name in sorted({point.name for point in entry_points(group=group)}):
            if f"{kind} {name}" in own:  # offbeat's own goes first
                continue
            try:
                options += options_of(_find(kind)(name), section, name)
            except Exception as error:  # of the package, of any class
                text = " ".join(str(error).split())
                broken.append(text if text.startswith(f"{kind} {name!r}") else f"{kind} {name!r}: {text}")
    return Installed(tuple(options), tuple(broken))


def _find(kind: str) -> Callable[[str], type]:
    """What gives the class of a configuration by its name. Imports torch."""
    if kind == "agent":
        from offbeat.agents.make import agent_config_class

        return agent_config_class
    from offbeat.replay.samplers import config_class

    return config_class


def options_of(cls: type, section: str, owner: str) -> list[Option]:
    """The options that a dataclass has, inherited ones included; their texts are the docstrings in its source.

    TypeError where it is no dataclass.
    """
    found: dict[str, Option] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= {option.name: option for option in _in_source(base, section, owner)}
    options = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = f"{section}.{field.name}"
        kind = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
        option = found.get(name) or make_option(name, kind, None, "", owner)
        if not option.default and isinstance(field.default, bool | int | float | str | tuple):
            option = dataclasses.replace(option, default=written(field.default))
        options.append(option)
    return options


def _in_source(cls: type, section: str, owner: str) -> list[Option]:
    """The options as the class's own file has them; none where it cannot be read."""
    try:
        return read_options(Path(inspect.getsourcefile(cls) or ""), cls.__qualname__, section, owner)
    except (OSError, TypeError, SyntaxError, KeyError):  # no file, such as a notebook's; or a class inside another
        return []


def find_options(name: str) -> list[Option]:
    """The options of that full name; several agents or samplers may have one. Packages are imported for those only
    that offbeat does not know.
    """
    pattern = ".".join("N" if part.isdecimal() else part for part in name.split("."))
    found = [option for option in all_options() if option.name == pattern]
    if not found and pattern.startswith(("agent.", "replay.samplers.N.")):
        found = [option for option in installed().options if option.name == pattern]
    return found


def agent_names() -> list[str]:
    """Names of all agents, in alphabetical order; nothing is imported."""
    own = {option.owner for option in all_options() if option.name.startswith("agent.") and option.owner}
    return sorted(own | {point.name for point in entry_points(group="offbeat.agents")})


ALSO_CALLED = {
    "lr": "learning_rate", "bs": "batch_size", "gamma": "discount",
    "num_envs": "envs_per_worker", "n_envs": "envs_per_worker", "num_workers": "workers",
    "timesteps": "total_frames", "total_timesteps": "total_frames", "max_grad_norm": "clip_norm",
    "ent_coef": "entropy_cost", "vf_coef": "baseline_cost", "buffer_size": "capacity", "n_steps": "unroll_length",
    "hidden_sizes": "hidden_size", "eps": "epsilon",
}  # fmt: skip
"""What other libraries call options."""


def suggest(key: str) -> str:
    """The nearest option to an unknown ``key``, as the end of a message; where the list is, if none is close.

    The part after the last dot counts too: ``batch_size`` suggests ``learner.batch_size``; so does what others call it:
    ``lr`` suggests ``learner.learning_rate``.
    """
    key = key.replace("-", "_")
    alike = {"valid_env", "final_env"} - {key.partition(".")[0]}  # with the options of the other environments
    names = list(dict.fromkeys(option.name for option in (*all_options(), *installed().options)))
    names = [name for name in names if name.partition(".")[0] not in alike]
    last = key.rpartition(".")[2]
    last = ALSO_CALLED.get(last, last)
    tail = [name for name in names if name.rpartition(".")[2] == last]
    if 0 < len(tail) <= 3:
        return f"; did you mean {' or '.join(map(repr, tail))}?"
    found = nearest(key, tail or [*names, *SHORT, "from"])
    return found or "; 'offbeat train --help' lists all options"


def help_text(width: int = 110) -> str:
    """All options as ``offbeat train --help`` shows them, one paragraph each."""
    lines: list[str] = []
    heading = None
    for option in (*all_options(), *installed().options):
        if option.name.partition(".")[0] in FOLLOWERS and option.name != "eval_env.life_loss":
            continue
        if heading_of(option) != heading:
            heading = heading_of(option)
            lines += ["", f"{heading}:"]
        lines += _paragraph(option, width)
    lines += ["", "--eval_env.* has the same options as --env.*, which it follows unless it is set;"]
    lines += ["--valid_env.* and --final_env.* follow --eval_env.* likewise."]
    for kind, called in NAMED.items():
        if names := sorted({point.name for point in entry_points(group=f"offbeat.{kind}s")}):
            lines.append(f"From installed packages, {called}: {', '.join(names)}")
    return "\n".join(lines) + "\n"


def _paragraph(option: Option, width: int) -> list[str]:
    facts = [option.values + (f" {option.range}" if option.range else "")]
    facts += [f"default {option.default}"] if option.default else []
    facts += [f"unit {option.unit}"] if option.unit else []
    facts += [f"source {option.source}"] if option.source else []
    text = f"{option.text.replace('``', '')} [{'; '.join(facts)}]".lstrip()
    body = textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
    return [f"  --{option.name}", *body]
