"""One run of a campaign: the commands that start it, go on with it and score it, and how it scored."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from offbeat.config.run_config import RunConfig, apply_overrides, full_name, load_preset, read_config, to_dict
from offbeat.config.validation import check_policy_lag, check_ranges, check_shares
from offbeat.errors import UserError
from offbeat.run.folders import CONFIG
from offbeat.run.grid import Setting, flat, toml
from offbeat.run.published import Published
from offbeat.run.records import evaluations

FINAL = "final"
"""What a run's own final evaluation is called."""
MAY_DIFFER = (
    "total_frames", "device", "*.device", "*threads", "*_timeout_s", "evaluation.*", "validation.*", "final.*",
    "final_env.*", "log.*", "checkpoint.*", "trace.*",
)  # fmt: skip
"""Options that a begun or finished run may have otherwise than the file says and still be the one that it means."""


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
    """The setting: the entry's name, of a grid with the values that are varied."""
    preset: str
    seed: int
    options: Setting
    folder: Path
    published: tuple[Published, ...] = ()
    scores: tuple[Further, ...] = ()
    entry: str = ""
    """Name of the entry that it comes from."""
    varied: Setting = ()
    """Those of its options that a grid varies."""
    own: tuple[str, str] | None = None
    """The user's own environment: what the command line calls it, and what the run's files do."""

    def command(self, shared: dict[str, int] | None = None) -> list[str]:
        """The ``offbeat`` arguments that start it; ``shared``: options that it gets beside its own."""
        # By its full name: ``--env module:function`` imports what it names, and no file may have that done.
        full = [(full_name(key), value) for key, value in (*self.options, *(shared or {}).items())]
        given = [text for key, value in full for text in (f"--{key}", toml(value))]
        return ["train", self.preset, "--seed", str(self.seed), "--out", str(self.folder), *given, *self._own()]

    def going_on(self) -> list[str]:
        """The ``offbeat`` arguments that go on with it, to the length that the file says if that is more now."""
        length, before = self.config().total_frames, read_config(self.folder / CONFIG).total_frames
        longer = ["--total-frames", str(length)] if length > before else []
        return ["resume", str(self.folder), *longer, *self._own()]

    def config(self) -> RunConfig:
        """Its configuration."""
        label = [] if self.own is None else [("env.id", self.own[1])]
        return apply_overrides(load_preset(self.preset), [*self.options, *label])

    def check(self) -> None:
        """Raise ``UserError`` if it cannot run, could never be scored, or its folder holds another run."""
        try:
            config = self.config()
            check_ranges(config)
            check_shares(config)
            check_policy_lag(config)
            for further in self.scores:
                apply_overrides(config, further.options())
        except UserError as error:
            raise UserError(f"{self.name!r}: {error}") from error
        if not config.evaluation.at_end:
            raise UserError(f"{self.name!r} has evaluation.at_end = false, so it gets no final score; leave it out")
        self._check_folder(config)

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
        return ["eval", str(self.folder), *played, *options, "--out", str(self.score_file(further)), *self._own()]

    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return any((self.folder / "checkpoints").glob("[0-9]*"))

    def _own(self) -> list[str]:
        return [] if self.own is None else ["--env", self.own[0]]

    def _check_folder(self, config: RunConfig) -> None:
        """Refuse a folder whose run was made with other options: it would count as this one."""
        if not (self.folder / CONFIG).is_file():
            return
        made, wanted = (flat(to_dict(one)) for one in (read_config(self.folder / CONFIG), config))
        given = ["preset", "env.id", *(full_name(key) for key, _ in self.options)]
        for name in given:
            free = any(fnmatch(name, pattern) for pattern in MAY_DIFFER) or wanted.get(name) == "auto"
            if not free and not (name == "actor.workers" and wanted[name] == 0) and made.get(name) != wanted.get(name):
                own = "; a run on your own environment needs its --env again" if name == "env.id" else ""
                raise UserError(
                    f"{self.folder} holds a run with {name} = {made.get(name)!r}, and the campaign says "
                    f"{wanted.get(name)!r}: give the entry {self.entry!r} another name or the file another 'out', or "
                    f"remove the folder{own}"
                )
