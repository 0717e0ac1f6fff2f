"""``offbeat realtime scaling``: how many inference processes suffice, by search."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from offbeat.commands.arguments import Scanned, number, scan, valued
from offbeat.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np

    from offbeat.bench.scaling import Wanted
    from offbeat.bench.scaling_report import Row
    from offbeat.runtime.realtime_config import RealtimeConfig

HELP = """usage: offbeat realtime scaling --recording FILE [--frames N,N,...] [--estimator E,E,...] [--share X]
                                [--most N] [--precision X] [--seed N] [--csv FILE] [--figure FILE]
                                [--wall] [--seconds S] [--realtime.option value ...]

Searches the smallest number of inference processes with which no more than a share of all frames is left to the
default behaviour, for each mean inference time and each estimator: by doubling, then by bisection, on a virtual clock
with the loops of the runtime itself. Inference times are drawn from the recording, scaled to the mean.

  --recording FILE   inference times, as 'offbeat realtime probe PRESET --save FILE' writes them
  --frames N,...     mean inference times in frames (1,2,5,10,20,50,100,200,500,1000,2000,5000,10000; --wall: 1,2,4,8)
  --estimator E,...  max,mean,quantile; unless --realtime.pad says otherwise, mean goes without padding
  --share X          of frames that may be left over (0.01)
  --most N           no more processes are tried (20000; --wall: 32), and no more than 32 per frame of the mean; of an
                     estimator no longer times than the first for which these do not suffice
  --precision X      the number found may be so large a share too large (0.01)
  --csv, --figure    where to write the table and the picture (png, svg, pdf)
  --wall             real processes on the wall clock, with padded inference times; --seconds (20) for each run.
                     It takes all cores: leave the machine alone meanwhile."""
FRAMES = "1,2,5,10,20,50,100,200,500,1000,2000,5000,10000"
OWN = ("recording", "frames", "estimator", "share", "most", "precision", "seed", "csv", "figure", "wall", "seconds")


def scaling(arguments: list[str]) -> int:
    """Search, print, and write what is asked for."""
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    scanned = scan(valued(arguments, "wall", "true"), own=OWN)
    _check(scanned)
    own, wall = scanned.own, scanned.own.get("wall", "false") == "true"
    from offbeat.bench.scaling import Wanted
    from offbeat.bench.scaling_report import draw, fits, table, write_csv

    times = _numbers("frames", own.get("frames", "1,2,4,8" if wall else FRAMES))
    wanted = Wanted(
        allowed=number(scanned, "share", 0.01),
        most=round(number(scanned, "most", 32 if wall else 20_000)),
        precision=number(scanned, "precision", 0.01),
        seed=int(own.get("seed", "0")),
    )
    recording = _recording(own["recording"])
    rows: list[Row] = []
    for name in own.get("estimator", "max,mean,quantile").split(","):
        rows += _series(_config(scanned, name, wall), times, recording, wanted, number(scanned, "seconds", 20.0), wall)
    print("\n".join(["", *table(rows), "", *fits(rows)]))
    note = shlex.join(["offbeat", "realtime", "scaling", *arguments])
    if "csv" in own:
        write_csv(rows, Path(own["csv"]), note)
    if "figure" in own:
        Path(own["figure"]).parent.mkdir(parents=True, exist_ok=True)
        draw(rows, f"At most {wanted.allowed:g} of the frames left over").savefig(own["figure"], dpi=150)
    return 0


def _series(
    config: RealtimeConfig, times: list[float], recording: np.ndarray, wanted: Wanted, seconds: float, wall: bool
) -> list[Row]:
    """All times of one estimator, with a line on stderr for each; up to the first that nothing suffices for."""
    from offbeat.bench.scaling import computed, search
    from offbeat.bench.scaling_report import Row, table
    from offbeat.bench.scaling_wall import search_wall

    rows: list[Row] = []
    for frames in sorted(times):
        before = rows[-1].found if rows else None
        start = round((before.processes or 1) * frames / before.frames) if before is not None else 1
        if wall:
            found = search_wall(config, recording, frames, wanted, seconds=seconds, start=start)
        else:
            found = search(config, recording, frames, wanted, start)
        rows.append(Row(found, computed(config, recording, frames)))
        print(table(rows)[-1], file=sys.stderr, flush=True)
        if found.processes is None:
            break
    return rows


def _check(scanned: Scanned) -> None:
    if scanned.positional:
        raise UserError(f"'offbeat realtime scaling' takes only options, got {scanned.positional[0]!r}")
    if "recording" not in scanned.own:
        raise UserError(
            "'offbeat realtime scaling' needs --recording FILE; 'offbeat realtime probe PRESET --save FILE' makes one"
        )
    for name, _ in scanned.options:
        if not name.startswith("realtime.") or name in ("realtime.inference", "realtime.estimator"):
            raise UserError(
                f"'offbeat realtime scaling' takes options of realtime.* that it does not choose, got --{name}"
            )
        if name == "realtime.mode":
            raise UserError(
                "'offbeat realtime scaling' asks how many processes suffice, and only mode async has more than one; "
                "leave realtime.mode"
            )
    if (wall := scanned.own.get("wall", "false")) not in ("true", "false"):
        raise UserError(f"--wall={wall!r} is not allowed; choose one of: true, false")
    if not (seed := scanned.own.get("seed", "0")).isdecimal():
        raise UserError(f"--seed={seed!r} is not a whole number of at least 0")
    for name in ("share", "precision"):
        if number(scanned, name, 0.01) >= 1:
            raise UserError(f"--{name}={scanned.own[name]} is out of range; it must be above 0 and below 1")


def _config(scanned: Scanned, estimator: str, wall: bool) -> RealtimeConfig:
    """The realtime options of an estimator."""
    from offbeat.algorithms.stagger import Estimator
    from offbeat.config.run_config import RunConfig, apply_overrides
    from offbeat.runtime.realtime_config import RealtimeConfig

    if estimator not in (allowed := get_args(Estimator)):
        raise unknown("estimator", estimator, allowed)
    first = RealtimeConfig(fps=30.0 if wall else 60.0, pad=estimator != "mean")
    chosen: Any = apply_overrides(RunConfig(realtime=first), scanned.options).realtime
    config: RealtimeConfig = replace(chosen, estimator=estimator)
    return config


def _recording(path: str) -> np.ndarray:
    """Inference times [n] from a file."""
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"--recording {path} cannot be read: {error}") from error
    except ValueError as error:  # numpy's own advice is to unpickle it
        raise UserError(
            f"--recording {path} is no array of NumPy's; 'offbeat realtime probe PRESET --save FILE' writes one"
        ) from error
    usable = isinstance(found, np.ndarray) and found.ndim == 1 and np.issubdtype(found.dtype, np.floating)
    if not usable or not len(found) or not (np.isfinite(found) & (found > 0)).all():
        raise UserError(f"--recording {path}: expected a list of times above 0, got an array that is none")
    return np.asarray(found, np.float64)


def _numbers(name: str, text: str) -> list[float]:
    """Numbers above zero, separated by commas."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < each <= 1e5 for each in found):
        raise UserError(f"--{name}={text!r} is not a list of numbers above 0 and up to 100000, such as 1,10,100")
    return found
