"""Campaigns: a table of runs in a TOML file, worked off one after the other; stop it at any time and start it again.

::

    out = "results/spine"

    [[runs]]
    name = "cartpole"
    preset = "impala-cartpole"
    seeds = [0, 1, 2]
    options = { "learner.learning_rate" = 5e-4 }
    published = [[5, 24_200], [10, 36_100]]     # scores of others after so many hours, to be drawn beside it

Each run is an ``offbeat train`` of its own in ``OUT/<name>-seed<seed>``. Finished ones are left alone, begun ones are
resumed, and one that was stopped in its final evaluation plays it again. At the end: ``OUT/campaign.csv`` with a row
per run and score, ``OUT/<name>.png`` with the curves, a table of scores.

A finished run's score is its final evaluation. It can be scored in other ways too, all runs of the file or, inside
``[[runs]]`` as a list ``scores``, those of one entry::

    [[scores]]
    name = "one life"
    eval_env = { life_loss = "end_episode" }    # what differs from the run's own evaluations
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.errors import UserError, nearest
from offbeat.run.locked import locked
from offbeat.run.passing_on import carry_out
from offbeat.run.records import evaluations

KEYS = {"name", "preset", "seeds", "options", "published", "scores"}
"""Keys of one entry."""
SCORE_KEYS = {"name", "eval_env"}
"""Keys of one further score."""
FINAL = "final"
"""What a run's own final evaluation is called."""


@dataclass(frozen=True)
class Further:
    """A further way to score finished runs."""

    name: str
    eval_env: tuple[tuple[str, Any], ...]
    """Options of the evaluation environment that differ from the run's."""

    @property
    def slug(self) -> str:
        """The name for files."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def options(self) -> list[tuple[str, str]]:
        """The same as options of a run: ("eval_env.life_loss", "end_episode")."""
        return [(f"eval_env.{name}", str(value)) for name, value in self.eval_env]


@dataclass(frozen=True)
class Planned:
    """One run of a campaign."""

    name: str
    preset: str
    seed: int
    options: tuple[tuple[str, Any], ...]
    folder: Path
    published: tuple[tuple[float, float], ...] = ()
    scores: tuple[Further, ...] = ()

    def command(self) -> list[str]:
        """The ``offbeat`` arguments that start it."""
        # By its full name: ``--env module:function`` imports what it names, and no file may have that done.
        full = [("env.id" if key == "env" else key, value) for key, value in self.options]
        given = [text for key, value in full for text in (f"--{key}", str(value))]
        return ["train", self.preset, "--seed", str(self.seed), "--out", str(self.folder), *given]

    def config(self) -> RunConfig:
        """Its configuration."""
        return apply_overrides(load_preset(self.preset), self.options)

    def check(self) -> None:
        """Raise ``UserError`` if it cannot run, or could never be scored."""
        config = self.config()
        if not config.evaluation.at_end:
            raise UserError(f"{self.name!r} has evaluation.at_end = false, so it gets no final score; leave it out")
        for further in self.scores:
            apply_overrides(config, further.options())

    def score(self, further: Further | None = None) -> dict[str, Any] | None:
        """The evaluation of its final weights, or a further one; None while there is none."""
        total_frames = self.config().total_frames
        if further is None:
            found = evaluations(self.folder) if self.folder.exists() else []
            done = [record for record in found if record["frames"] >= total_frames]
            return done[-1] if done else None
        try:
            record: dict[str, Any] = json.loads(self.score_file(further).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        same = record["frames"] >= total_frames and record["eval_env"] == dict(further.options())
        return record if same else None

    def score_file(self, further: Further) -> Path:
        """Where a further score is kept."""
        return self.folder / "scores" / f"{further.slug}.json"

    def scoring(self, further: Further) -> list[str]:
        """The ``offbeat`` arguments that play for it."""
        options = [text for name, value in further.options() for text in (f"--{name}", value)]
        played = ["--episodes", str(self.config().evaluation.episodes), "--seed", str(self.seed)]
        return ["eval", str(self.folder), *played, *options, "--out", str(self.score_file(further))]


def read_campaign(path: Path) -> tuple[Path, list[Planned]]:
    """The output folder and all runs of a campaign file. Raises ``UserError`` for anything that cannot run."""
    if not path.exists():
        raise UserError(f"no campaign file {path}; it is a TOML file with [[runs]]")
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no TOML: {error}") from error
    out = Path(data.get("out", f"results/{path.stem}"))
    runs = list(_planned(data.get("runs", []), out, data.get("scores", [])))
    if not runs:
        raise UserError(f"{path} has no [[runs]]")
    for run in runs:
        run.check()
    return out, runs


def _planned(entries: list[dict[str, Any]], out: Path, scores: list[dict[str, Any]]) -> Iterator[Planned]:
    for entry in entries:
        for key in entry:
            if key not in KEYS:
                raise UserError(f"unknown key {key!r} in [[runs]]{nearest(key, KEYS)}")
        if "preset" not in entry:
            raise UserError("an entry of [[runs]] has no preset")
        name = entry.get("name", entry["preset"])
        try:
            published = tuple((float(hours), float(score)) for hours, score in entry.get("published", []))
        except (TypeError, ValueError) as error:
            raise UserError(f"published of {name!r} must be a list of [hours, score]: {error}") from error
        further = _further([*scores, *entry.get("scores", [])])
        for seed in entry.get("seeds", [0]):
            options = tuple(entry.get("options", {}).items())
            yield Planned(name, entry["preset"], seed, options, out / f"{name}-seed{seed}", published, further)


def _further(entries: list[dict[str, Any]]) -> tuple[Further, ...]:
    """The further scores of one run. Raises ``UserError``."""
    found: dict[str, Further] = {}
    for entry in entries:
        for key in entry:
            if key not in SCORE_KEYS:
                raise UserError(f"unknown key {key!r} in [[scores]]{nearest(key, SCORE_KEYS)}")
        further, options = Further(str(entry.get("name", "")), ()), entry.get("eval_env")
        if not further.slug or not isinstance(options, dict):
            raise UserError(f"an entry of [[scores]] needs a name and eval_env = {{ option = value }}, got {entry}")
        if further.slug == FINAL or further.slug in found:
            raise UserError(f"two scores are called {further.name!r} ({FINAL!r} is the final evaluation); rename one")
        found[further.slug] = replace(further, eval_env=tuple(options.items()))
    return tuple(found.values())


def run_campaign(path: Path, report: Callable[[Path, list[Planned]], object]) -> int:
    """Work off a campaign, and ``report`` of what it left in its folder; returns how many runs failed.

    Raises ``UserError`` where another one does the same.
    """
    out, runs = read_campaign(path)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", f"another campaign is at work in {out}; wait for its end, or stop it with Ctrl-C"):
        failed = _work_off(runs)
        report(out, runs)
    return failed


def _work_off(runs: list[Planned]) -> int:
    """Run and score what is not there yet, until everything is or somebody stops it; how much failed."""
    failed = 0
    for number, run in enumerate(runs, 1):
        title = f"[{number}/{len(runs)}] {run.folder}"
        if run.score() is not None:
            print(f"{title}: finished already", flush=True)
        else:
            arguments = _arguments(run)
            print(f"{title}: {' '.join(arguments)}", flush=True)
            code, stopped = carry_out(arguments)
            if stopped or (code == 0 and run.score() is None):
                return _stopped(failed)
            if code != 0:
                failed += 1
                continue
        for further in run.scores:
            if run.score(further) is None:
                print(f"{title}, {further.name}: {' '.join(run.scoring(further))}", flush=True)
                code, stopped = carry_out(run.scoring(further))
                if stopped:
                    return _stopped(failed)
                failed += code != 0
    return failed


def _stopped(failed: int) -> int:
    print("stopped; start the campaign again to go on", flush=True)
    return failed


def _arguments(run: Planned) -> list[str]:
    """Train, or resume if there is a checkpoint; what is left of a run without one is removed."""
    if run.folder.exists():
        with locked(
            run.folder / ".lock",
            f"another process is training in {run.folder}; wait for its end, or stop it with Ctrl-C",
        ):
            if any((run.folder / "checkpoints").glob("[0-9]*")):
                return ["resume", str(run.folder)]
            shutil.rmtree(run.folder, ignore_errors=True)
    return run.command()
