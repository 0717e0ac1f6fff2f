"""One fault after the other, each with a verdict in a line."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from offbeat.config.run_config import RunConfig
from offbeat.run.chaos.ground import Fault, Ground
from offbeat.run.chaos.verdicts import Broken, Unfit
from offbeat.run.verify import told_to_end

OK, BROKEN, NOT_HERE = "ok", "BROKEN", "-"
"""What lines begin with: the promise was kept, or not, or the fault cannot happen to this run on this machine."""


def chaos(
    config: RunConfig,
    arguments: list[str],
    faults: Iterable[Fault],
    *,
    folder: Path | None = None,
    env_is_own: bool = False,
) -> bool:
    """Make each fault happen to real runs and print what came of it; whether every promise was kept.

    Args:
        config: the preset with the options laid over it.
        arguments: the preset and the options as they were given, for ``offbeat train``.
        faults: those that are to happen.
        folder: of the runs, kept; it exists and is empty. None: a temporary one, removed where all is well.
        env_is_own: the environment is a user's own, ``--env module:function``.
    """
    work = Path(tempfile.mkdtemp(prefix="offbeat-chaos-")) if folder is None else folder.resolve()
    ground = Ground(config, arguments, work, env_is_own)
    kept = False
    counts, began = dict.fromkeys((OK, BROKEN, NOT_HERE), 0), time.monotonic()
    print(f"runs of {arguments[0]}: {work}", flush=True)
    with told_to_end():
        try:
            for fault in faults:
                verdict, text = judged(fault, ground)
                counts[verdict] += 1
                print(f"{verdict:<6} {fault.title}: {text}", flush=True)
            kept = not counts[BROKEN]
        finally:
            ground.end()
            print(
                f"{counts[OK]} promises kept, {counts[BROKEN]} broken, {counts[NOT_HERE]} not made to happen here; "
                f"{time.monotonic() - began:.0f} s"
            )
            if folder is None and kept:
                shutil.rmtree(work)
            else:
                print(f"the runs are kept in {work}")
    return kept


def judged(fault: Fault, ground: Ground) -> tuple[str, str]:
    """Make a fault happen: the verdict, and what it rests on.

    A run that broke a promise, or that this could not deal with, is left as it is; the next fault gets another one.
    """
    if lack := ground.lacks(fault.needs):
        return NOT_HERE, lack
    try:
        return OK, fault.make(ground)
    except Unfit as why:
        return NOT_HERE, str(why)
    except Broken as broken:
        ground.clear()
        return BROKEN, f"{broken} (promised: {fault.promise})"
    except (OSError, LookupError, ValueError) as error:  # a run that does what nobody thought of
        ground.clear()
        return BROKEN, f"expected evidence, got {type(error).__name__}: {error} (promised: {fault.promise})"
