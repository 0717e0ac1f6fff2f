"""Reading campaign files: every run that one asks for, every mistake named before anything starts. docs/campaigns.md
shows such files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from offbeat.config.run_config import full_name
from offbeat.errors import UserError, nearest
from offbeat.run.grid import flat, setting_names
from offbeat.run.planned import FINAL, Further, Planned
from offbeat.run.published import Published, read_published

TOP_KEYS = {"out", "at_once", "runs", "grid", "scores"}
"""Keys of the file."""
KEYS = {"runs": {"name", "preset", "seeds", "options", "published", "scores"}}
KEYS["grid"] = KEYS["runs"] | {"over"}
"""Keys of one entry."""
SCORE_KEYS = {"name", "eval_env"}
"""Keys of one further score."""
ELSEWHERE = {"seed": "seeds = [0, 1]", "out": "out at the top of the file, and the name"}
"""Option that no entry may set -> what says it in a campaign."""


@dataclass(frozen=True)
class Campaign:
    """A campaign file, read."""

    file: Path
    out: Path
    runs: list[Planned]
    at_once: int | None = None
    """Runs at a time; None: as many as the cores allow."""


@dataclass(frozen=True)
class Env:
    """The environment that the command line gives to every run of a campaign."""

    named: str
    """As it was given: an id, or what names the user's own."""
    factory: Callable[..., Any] | None = None
    """Makes the user's own; None: ``named`` is an id."""


def read_campaign(path: Path, env: Env | None = None) -> Campaign:
    """All runs of a campaign file, every one ``Planned.check``-ed. Raises ``UserError`` for anything that cannot run.

    ``env``: what all of them are trained on instead of their own environments.
    """
    if not path.is_file():
        raise UserError(f"no campaign file {path}; it is a TOML file with [[runs]] or [[grid]]")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML: {error}") from error
    _check_keys(data, TOP_KEYS, str(path))
    out, at_once = data.get("out", f"results/{path.stem}"), data.get("at_once")
    if not isinstance(out, str) or not out:
        raise UserError(f"out of {path} must be a folder's name, got {out!r}")
    check_at_once("at_once", at_once)
    runs = []
    for kind in ("runs", "grid"):
        for entry in _tables(data, kind, f"{path}: [[{kind}]]"):
            further = _further([*_tables(data, "scores", f"{path}: [[scores]]"), *_scores_of(entry)])
            runs += [replace(run, scores=further) for run in _planned(kind, entry, Path(out))]
    if not runs:
        raise UserError(f"{path} has no [[runs]] and no [[grid]]")
    campaign = Campaign(path, Path(out), [_on(run, env) for run in runs], at_once)
    _check_folders(campaign)
    for run in campaign.runs:
        run.check()
    return campaign


def check_at_once(name: str, value: Any) -> None:
    """Refuse what is no number of runs; None is none, and fine."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"{name}={value!r} must be a whole number of runs, at least 1")


@dataclass(frozen=True)
class _Entry:
    """One entry, its values checked for their kind."""

    name: str
    preset: str
    seeds: list[int]
    options: dict[str, Any]
    over: dict[str, list[Any]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()


def _planned(kind: str, entry: dict[str, Any], out: Path) -> Iterator[Planned]:
    """The runs of one entry, without further scores."""
    read = _entry(kind, entry)
    for name, setting in setting_names(read.name, read.over).items():
        options = (*read.options.items(), *setting)
        for seed in read.seeds:
            folder = out / f"{name}-seed{seed}"
            yield Planned(name, read.preset, seed, options, folder, read.published, (), read.name, setting)


def _entry(kind: str, entry: dict[str, Any]) -> _Entry:
    _check_keys(entry, KEYS[kind], f"[[{kind}]]")
    if not isinstance(entry.get("preset"), str):
        raise UserError(f"an entry of [[{kind}]] has no preset")
    name = entry.get("name", Path(entry["preset"]).stem)
    if not isinstance(name, str) or not re.fullmatch(r"[^/\0.-][^/\0]*", name):
        raise UserError(f"[[{kind}]] name={name!r} must be a name for folders: no '/', and no '.' or '-' at its start")
    where = f"[[{kind}]] {name!r}"
    seeds = entry.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise UserError(f"{where}: seeds={seeds!r} must be a list of whole numbers, such as [0, 1, 2]")
    options = _options(entry.get("options", {}), f"{where}: options")
    over = _options(entry.get("over", {}), f"{where}: over")
    if kind == "grid" and not over:
        raise UserError(f'{where} varies nothing: give over = {{ "learner.learning_rate" = [1e-3, 3e-4] }}')
    for option, values in over.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: over: {option}={values!r} must be a list of values, with one at least")
        if option in options:
            raise UserError(f"{where}: {option} is in options and in over; leave one out")
    return _Entry(name, entry["preset"], seeds, options, over, read_published(entry.get("published", []), name))


def _options(given: Any, where: str) -> dict[str, Any]:
    """Options by their full names."""
    if not isinstance(given, dict):
        raise UserError(f"{where} must be a table, {{ option = value }}, got {given!r}")
    found = {full_name(key): value for key, value in flat(given).items()}
    for key in found.keys() & ELSEWHERE.keys():
        raise UserError(f"{where}: {key} is no option of an entry; write {ELSEWHERE[key]}")
    return found


def _on(run: Planned, env: Env | None) -> Planned:
    """The run on the environment of the command line, if there is one."""
    if env is None:
        return run
    if any(full_name(key) in ("env.id", "env.ids", "eval_env.id", "eval_env.ids") for key, _ in run.options):
        raise UserError(f"--env {env.named} was given, and {run.entry!r} names an environment too; leave one out")
    if env.factory is None:
        return replace(run, options=(*run.options, ("env.id", env.named)))
    return replace(run, own=(env.named, str(getattr(env.factory, "__name__", "own"))))


def _check_folders(campaign: Campaign) -> None:
    """Refuse two runs of one folder."""
    known: dict[Path, Planned] = {}
    for run in campaign.runs:
        if run.folder in known:
            one, other = known[run.folder], run
            raise UserError(
                f"{campaign.file}: two entries have the folder {run.folder}: {one.entry!r} and {other.entry!r}, both "
                f"with seed {run.seed}; give one another name"
            )
        known[run.folder] = run


def _scores_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return _tables(entry, "scores", f"scores of {entry.get('name', entry.get('preset'))!r}")


def _further(entries: list[dict[str, Any]]) -> tuple[Further, ...]:
    """The further scores of one run. Raises ``UserError``."""
    found: dict[str, Further] = {}
    for entry in entries:
        _check_keys(entry, SCORE_KEYS, "[[scores]]")
        further, options = Further(str(entry.get("name", "")), ()), entry.get("eval_env")
        if not further.slug or not isinstance(options, dict):
            raise UserError(f"an entry of [[scores]] needs a name and eval_env = {{ option = value }}, got {entry}")
        if further.slug == FINAL or further.slug in found:
            raise UserError(f"two scores are called {further.name!r} ({FINAL!r} is the final evaluation); rename one")
        found[further.slug] = replace(further, eval_env=tuple(options.items()))
    return tuple(found.values())


def _tables(data: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """A list of tables; empty where there is none."""
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UserError(f"{where} must be tables, got {key} = {found!r}")
    return found


def _check_keys(table: dict[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            hint = nearest(key, known) or f"; known: {', '.join(sorted(known))}"
            raise UserError(f"unknown key {key!r} in {where}{hint}")
