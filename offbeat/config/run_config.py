"""The configuration of a run: one frozen dataclass that nests each role's own, made from presets, files and overrides.

A preset is a TOML file that holds only what differs from the defaults. ``[preset] extends = "name"`` stacks it on
another one. ``[eval_env]`` starts as a copy of ``[env]`` in which lives lost are ignored: scores are of whole games.
``[valid_env]`` and ``[final_env]`` start as copies of ``[eval_env]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w

from offbeat.acting.final_sets import FinalConfig
from offbeat.config import schema
from offbeat.config.env_lists import NAMES, check_one_way, listed
from offbeat.config.log import LogConfig
from offbeat.config.options import FOLLOWERS
from offbeat.config.presets import find_preset, read_toml
from offbeat.envs.base import EnvConfig
from offbeat.envs.delay_config import DelayConfig
from offbeat.errors import UserError, unknown
from offbeat.replay.demonstrated import DemonstrationsConfig
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.sampler import SamplerConfig
from offbeat.replay.samplers import config_class
from offbeat.runtime.actor import ActorConfig
from offbeat.runtime.evaluator import EvaluationConfig
from offbeat.runtime.inference import InferenceConfig
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.spans import TraceConfig
from offbeat.runtime.validations import ValidationConfig
from offbeat.storage.checkpoint import CheckpointConfig

EVAL_ENV_OWN = ("life_loss",)
"""Fields of ``[eval_env]`` that never follow ``[env]``."""
ENVS = ("env", *FOLLOWERS)
"""All sections of environments."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run."""

    preset: str = ""
    """Name of the preset that the run started from."""
    engine: Literal["local", "inline"] = "local"
    """What hosts the roles: ``local`` processes with shared memory, or all ``inline`` in one thread (bit-reproducible,
    for debugging)."""
    deterministic: bool = False
    """Fix the schedule of the roles so that on processors the same seed gives the same weights bit for bit, also after
    a resume; slower. ``local`` runs its lock-step mode; ``inline`` always does."""
    device: str = "auto"
    """Torch device: ``cpu``, ``cuda``, ``cuda:1``; ``auto``: CUDA where there is one."""
    seed: int = 0
    """Seed of every random number generator of the run."""
    total_frames: int = 10_000_000
    """Length of the run: frames of the transitions that were trained on, each counted once; without a fifo, of those
    that were appended to the streams. Unit: environment frames."""
    out: str = ""
    """Run folder; empty: ``results/<environment>_<unix time>``."""
    agent_name: str = "impala"
    """Which agent; in files ``name`` of section ``[agent]``, on the command line ``--agent``."""
    agent: Any = None
    """The agent's own configuration; its fields depend on the agent."""
    env: EnvConfig = field(default_factory=EnvConfig)
    """Environments that are trained on."""
    eval_env: EnvConfig = field(default_factory=EnvConfig)
    """Environments that evaluations are played in: as ``env`` but for what is set here; lost lives are ignored."""
    valid_env: EnvConfig = field(default_factory=EnvConfig)
    """Environments that validations are played in: as ``eval_env`` but for what is set here."""
    final_env: EnvConfig = field(default_factory=EnvConfig)
    """Environments of the sets that a run ends with: as ``eval_env`` but for what is set here."""
    delay: DelayConfig = field(default_factory=DelayConfig)
    """A simulated delay of every decision, in training and evaluations."""
    actor: ActorConfig = field(default_factory=ActorConfig)
    """How experience is gathered."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """The inference server."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """Batches and optimiser."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """What is kept and how batches are drawn."""
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    """Rows that a person or a program has played, to learn from."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """When and how the agent is scored."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """When the agent is scored on what it was not trained on, so that the best weights can be kept."""
    final: FinalConfig = field(default_factory=FinalConfig)
    """Sets of environments that the final weights are scored on."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When the run is saved."""
    log: LogConfig = field(default_factory=LogConfig)
    """What is printed and written."""
    realtime: RealtimeConfig = field(default_factory=RealtimeConfig)
    """An environment that never waits, and the inference processes around it."""
    trace: TraceConfig = field(default_factory=TraceConfig)
    """When the time line of the roles is recorded."""

    def __post_init__(self) -> None:
        """Environments carry the delay along to wherever they are made."""
        for name in ENVS:
            env: EnvConfig = getattr(self, name)
            if env.delay != self.delay:
                object.__setattr__(self, name, replace(env, delay=self.delay))


SECTIONS: dict[str, type] = {
    **dict.fromkeys(ENVS, EnvConfig), "delay": DelayConfig, "actor": ActorConfig, "inference": InferenceConfig,
    "learner": LearnerConfig, "replay": ReplayConfig, "demonstrations": DemonstrationsConfig,
    "evaluation": EvaluationConfig, "validation": ValidationConfig,
    "final": FinalConfig, "checkpoint": CheckpointConfig, "log": LogConfig, "realtime": RealtimeConfig,
    "trace": TraceConfig,
}  # fmt: skip
"""Section of a TOML file -> its dataclass; ``agent`` depends on the agent and is not listed."""

TOP = tuple(f.name for f in fields(RunConfig) if f.name not in (*SECTIONS, "agent", "agent_name"))
"""Fields outside any section."""


def from_dict(data: dict[str, Any]) -> RunConfig:
    """A configuration from nested plain data as TOML gives it; what is absent keeps its default.

    Raises ``UserError`` for unknown keys (naming the nearest), wrong types and unknown agents.
    """
    _check_keys(data)
    data = _with_lists(_with_samplers(data))
    for name in ENVS:
        if "delay" in _section(data, name):
            raise UserError(f"unknown option '{name}.delay'; a delay is the section [delay] beside [{name}]")
    sections: dict[str, Any] = {name: schema.build(cls, data.get(name, {}), name) for name, cls in SECTIONS.items()}
    for name, leader in FOLLOWERS.items():
        followed = replace(sections[leader], life_loss="ignore") if leader == "env" else sections[leader]
        sections[name] = schema.update(followed, data.get(name, {}), name)
    agent = dict(_section(data, "agent"))
    name = schema.convert(agent.pop("name", "impala"), str, "agent.name")
    config = RunConfig(agent_name=name, agent=schema.build(agent_config(name), agent, "agent"), **sections)
    return schema.update(config, {key: value for key, value in data.items() if key in TOP}, "")


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The whole configuration as nested plain data; ``from_dict`` gives an equal one back."""
    data: dict[str, Any] = {key: schema.plain_value(getattr(config, key)) for key in TOP}
    data["agent"] = {"name": config.agent_name, **schema.plain(config.agent)}
    data |= {name: schema.plain(getattr(config, name)) for name in SECTIONS}
    for name in ENVS:
        del data[name]["delay"]  # a section of its own
    return data


def to_toml(config: RunConfig) -> str:
    """The whole configuration as the text of a TOML file, as ``config.toml`` of a run folder holds it."""
    return tomli_w.dumps(to_dict(config))


def read_config(path: str | Path) -> RunConfig:
    """The configuration in a TOML file, e.g. a run folder's ``config.toml``. Raises ``UserError``."""
    return from_dict(_stacked(Path(path)))


def load_preset(name_or_path: str | Path) -> RunConfig:
    """A preset by name (``offbeat presets`` lists them) or by the path of a TOML file. Raises ``UserError``."""
    path = find_preset(str(name_or_path))
    data = _stacked(path)
    data.setdefault("preset", path.stem)
    return from_dict(data)


def apply_overrides(config: RunConfig, overrides: Iterable[tuple[str, Any]]) -> RunConfig:
    """A copy of ``config`` with options replaced, in order: ``("learner.batch_size", "16")``; values may be text.

    ``agent`` (or ``agent.name``) first, if given, as it decides which ``agent.*`` options exist: another agent starts
    from its defaults. ``env.*`` also changes ``eval_env`` where the two were equal, and so on (``FOLLOWERS``).
    ``env`` is short for ``env.id``, ``stem`` for ``learner.stem``. ``replay.samplers.0.share`` changes one sampler.
    Raises ``UserError``.
    """
    items = [(full_name(key), value) for key, value in overrides]
    check_one_way({key for key, _ in items}, ENVS)
    for key, value in sorted(items, key=lambda item: item[0] != "agent.name"):
        config = _override(config, key, value)
    return config


def agent_config(name: str) -> type:
    """The configuration class of the agent ``name``. Raises ``UserError`` naming the nearest agent."""
    from offbeat.agents.make import agent_config_class, list_agents

    known = list_agents()
    if name not in known:
        raise unknown("agent", name, known)
    return agent_config_class(name)


def _override(config: RunConfig, key: str, value: Any) -> RunConfig:
    """One option replaced."""
    section, _, rest = key.partition(".")
    if key == "agent.name":
        if value == config.agent_name:
            return config
        return replace(config, agent_name=str(value), agent=agent_config(str(value))())
    if section in TOP and not rest:
        return schema.update(config, {section: value}, "")
    if section not in (*SECTIONS, "agent") or not rest:
        _check_keys({section: {}})
        raise UserError(
            f"option {key!r} is a section; set one of its options, e.g. --{section}.{_example(config, section)}"
        )
    if section in ENVS and rest == "delay":
        raise UserError(f"unknown option {key!r}; a delay is set by options of its own, e.g. delay.inference_frames")
    if section == "replay" and rest == "samplers":
        value = _samplers(value)
    changed = replace(config, **{section: _update_section(getattr(config, section), rest, value, section)})
    return _followed(config, changed, rest) if section in ENVS else changed


def _followed(before: RunConfig, config: RunConfig, name: str) -> RunConfig:
    """``config``, in which the option ``name`` of one section of environments is another than ``before``, with those
    that follow it and were equal changed too.
    """
    names = NAMES if name in NAMES else (name,)  # what is played is said by both together

    def values(of: RunConfig, section: str) -> dict[str, Any]:
        return {name: getattr(getattr(of, section), name) for name in names}

    for follower, leader in FOLLOWERS.items():
        was, value = values(before, leader), values(config, leader)
        own = follower == "eval_env" and name in EVAL_ENV_OWN
        if value != was and not own and values(before, follower) == was:
            config = replace(config, **{follower: replace(getattr(config, follower), **value)})
    return config


def _with_samplers(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` with the samplers made: each has options of its own, by its kind."""
    replay = data.get("replay")
    if not isinstance(replay, dict) or "samplers" not in replay:
        return data
    return {**data, "replay": {**replay, "samplers": _samplers(replay["samplers"])}}


def _with_lists(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` in which the lists of games and the ids of environments agree."""
    return data | {name: listed(data[name], name) for name in ENVS if isinstance(data.get(name), dict)}


def _samplers(value: Any) -> Any:
    """The samplers of a list of tables, or of its text; whatever else it is, to be refused."""
    where = "replay.samplers"
    if isinstance(value, str):
        value = schema.parse_list(value, where)
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict | SamplerConfig) for item in value):
        return value
    return tuple(_sampler(item, f"{where}.{index}") for index, item in enumerate(value))


def _sampler(item: dict[str, Any] | SamplerConfig, where: str) -> SamplerConfig:
    if isinstance(item, SamplerConfig):
        return item
    options = dict(item)
    kind = schema.convert(options.pop("kind", "fifo"), str, f"{where}.kind")
    made: SamplerConfig = schema.build(config_class(kind), options, where)
    return replace(made, kind=kind)


def _update_section(instance: Any, rest: str, value: Any, section: str) -> Any:
    """A section with one field, or one item of its tuple of dataclasses, replaced."""
    name, _, inner = rest.partition(".")
    if not inner:
        values = {name: value}
        return schema.update(instance, listed(values, section) if section in ENVS else values, section)
    index, _, item_field = inner.partition(".")
    items = list(getattr(instance, name, ()))
    if not (index.isdecimal() and item_field and int(index) < len(items)):
        raise UserError(f"unknown option '{section}.{rest}'; write {section}.{name}.N.key with N below {len(items)}")
    where, item = f"{section}.{name}.{index}", items[int(index)]
    if item_field == "kind":  # another class; what both know stays
        cls = config_class(schema.convert(value, str, f"{where}.kind"))
        kept = {f.name: getattr(item, f.name) for f in fields(cls) if f.name != "kind" and hasattr(item, f.name)}
        items[int(index)] = cls(kind=value, **kept)
    else:
        items[int(index)] = schema.update(item, {item_field: value}, where)
    return replace(instance, **{name: tuple(items)})


def full_name(key: str) -> str:
    """An option's full name with underscores: short forms and dashes resolved."""
    key = key.replace("-", "_")
    short = {name: f"{name}.id" for name in ENVS} | {"stem": "learner.stem"}
    return (short | {"agent": "agent.name", "agent_name": "agent.name"}).get(key, key)


def _example(config: RunConfig, section: str) -> str:
    return fields(getattr(config, section))[0].name.replace("_", "-")


def _check_keys(data: dict[str, Any]) -> None:
    """Refuse keys that are neither a section nor a top-level option."""
    known = (*TOP, *SECTIONS, "agent")
    for key in data:
        if key not in known:
            from offbeat.config.known import suggest

            raise UserError(f"unknown option {key!r}{suggest(key)}")


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    section = data.get(name, {})
    if not isinstance(section, dict):
        raise UserError(f"{name}={section!r} is not a section; write [{name}] with keys below it")
    return section


def _stacked(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The data of a TOML file laid over the preset that it extends, sections merged key by key."""
    if path in seen:
        raise UserError(f"preset {path.stem!r} extends itself, by way of {', '.join(p.stem for p in seen)}")
    data = _with_lists(read_toml(path))
    head = data.pop("preset", {})
    if isinstance(head, str):  # a run folder's config.toml names its preset
        return {"preset": head, **data}
    if others := sorted(head.keys() - {"extends"}):
        raise UserError(f"{path.name}: {others[0]!r} in [preset] is read by nobody, as all but extends; write it above")
    base = head.get("extends")
    if not base:
        return data
    below = _stacked(find_preset(base), (*seen, path))
    if "name" in _section(data, "agent") and data["agent"]["name"] != _section(below, "agent").get("name", "impala"):
        below.pop("agent", None)  # another agent: the options of the old one mean nothing
    for key, value in data.items():
        below[key] = {**below[key], **value} if isinstance(value, dict) and isinstance(below.get(key), dict) else value
    return below
