"""Files of a run that are torn, missing or something else, and folders that others take or remove."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import tomli_w

from offbeat.config.presets import read_toml
from offbeat.run.chaos.child import Child
from offbeat.run.chaos.ground import Fault, Ground, copied, ended, goes_on, saved
from offbeat.run.chaos.verdicts import expect
from offbeat.storage.checkpoint import newest

FILES = ("metrics.jsonl", "progress.csv", "environment.json", "run.log")
"""Files of a run that are written on and on, or anew when it goes on."""


def truncate(checkpoint: Path) -> None:
    """Cut the learner's part in half, as a power cut does."""
    file = checkpoint / "learner.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(checkpoint: Path) -> None:
    """One bit in the middle of the learner's part."""
    file = checkpoint / "learner.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def remove_a_file(checkpoint: Path) -> None:
    """The learner's part is gone."""
    (checkpoint / "learner.safetensors").unlink()


DAMAGES = {"truncated": truncate, "a flipped bit": flip_a_bit, "a missing file": remove_a_file}
"""What is done to a checkpoint -> how."""


def torn_checkpoints(ground: Ground) -> str:
    """The newest three are broken, each in another way, and the run is resumed."""
    run = ground.stopped(checkpoints=len(DAMAGES) + 1)
    names = saved(run)[::-1]
    for name, damage in zip(names, DAMAGES.values(), strict=False):
        damage(run / "checkpoints" / name)
    child = ground.live()
    for name in names[: len(DAMAGES)]:
        told = [line for line in child.output.splitlines() if "skipped a broken checkpoint" in line and name in line]
        expect(len(told) == 1, f"one line that checkpoint {name} is skipped", told or child.last_line)
    at = int(names[len(DAMAGES)])
    ground.stopped(whole=False)  # those that are broken stay the newest until it has come so far again
    found = newest(run, report=lambda text: None)
    expect(found is not None and int(found.path.name) > at, f"a complete checkpoint after {at:,} steps", found)
    for name in names[: len(DAMAGES)]:
        if found is not None and name != found.path.name:
            shutil.rmtree(run / "checkpoints" / name, ignore_errors=True)
    return f"{', '.join(DAMAGES)}: three are skipped, each in one line; resumed from the next older one, {at:,} steps"


def _resumes_with(ground: Ground, run: Path, names: tuple[str, ...]) -> None:
    """The shared run goes on, and names each of these files in one line."""
    child = ground.live()
    for name in names:
        told = [line for line in child.output.splitlines() if name in line and "progress frames" not in line]
        expect(len(told) == 1, f"one line that names {name}", told or "none")
    ground.stopped()


def torn_files(ground: Ground) -> str:
    """Records, tables and notes are cut as by a power cut."""
    run = ground.stopped()
    lines = (run / "metrics.jsonl").read_bytes().count(b"\n")
    for name in FILES:
        os.truncate(run / name, max(7, (run / name).stat().st_size // 2 - 1))
    _resumes_with(ground, run, FILES[:3])
    for name in FILES[:2]:
        expect((run / name).read_bytes().endswith(b"\n"), f"whole lines in {name}", "a torn last line")
    torn = [number for number, line in enumerate((run / "metrics.jsonl").open(), 1) if not _is_json(line)]
    expect(not torn, "no torn line in metrics.jsonl", f"lines {torn[:5]}")
    expect((run / "environment.json.broken").is_file(), "environment.json.broken", "none")
    expect(_is_json((run / "environment.json").read_text()), "environment.json begun anew", "a torn one")
    return f"resumed; each is named in one line, {lines:,} records were cut in the middle, and no line is torn now"


def other_files(ground: Ground) -> str:
    """Folders, a pipe and nothing are where they were."""
    run = ground.stopped()
    for name in FILES:
        (run / name).unlink()
        (run / f"{name}.broken").unlink(missing_ok=True)
    (run / "metrics.jsonl").mkdir()
    os.mkfifo(run / "progress.csv")
    (run / "run.log").mkdir()
    _resumes_with(ground, run, FILES[:2])
    expect((run / "metrics.jsonl.broken").is_dir(), "the folder renamed to metrics.jsonl.broken", "none")
    expect((run / "progress.csv.broken").is_fifo(), "the pipe renamed to progress.csv.broken", "none")
    for name in FILES:
        expect((run / name).is_file(), f"{name} begun anew", "none")
    return "a folder, a pipe, a missing file and a folder: what cannot be used is renamed to .broken and begun anew"


def edited_config(ground: Ground) -> str:
    """config.toml asks for one environment more for each actor than the checkpoint has streams of."""
    run = ground.stopped()
    before = (run / "config.toml").read_bytes()
    data = read_toml(run / "config.toml")
    was = data["actor"]["envs_per_worker"]
    data["actor"]["envs_per_worker"] = was + 1
    (run / "config.toml").write_text(tomli_w.dumps(data))
    try:
        _refused(ground.resume(run), "actor.envs_per_worker", str(was), str(was + 1))
    finally:
        (run / "config.toml").write_bytes(before)
    return f"refused in one line: actor.envs_per_worker, {was} and {was + 1}; exit code 2, nothing was spawned"


def two_runs(ground: Ground) -> str:
    """The shared run is at work; another command resumes it, and a third one wants its folder."""
    child, run = ground.live(), str(ground.run)
    _refused(ground.command("resume", run, *(("--env", ground.own_env) if ground.own_env else ())), "another process")
    _refused(ground.command("train", *ground.arguments, "--out", run), run)
    goes_on(child, ground.run)
    return "resume and train are refused in one line, exit code 2; the first run goes on"


def _refused(child: Child, *said: str) -> None:
    """The command ends with exit code 2 and one line that says all this, before it starts a role."""
    most = 0
    while child.running():
        most = max(most, len(child.roles()))
        time.sleep(0.05)
    code = child.process.returncode
    expect(code == 2, "exit code 2", f"{code}: {child.last_line}")
    expect(not most, "no role spawned", f"{most} of them")
    lines = [line for line in child.output.splitlines() if line.startswith("offbeat: error: ")]
    expect(len(lines) == 1, "one line that begins with 'offbeat: error:'", child.last_line)
    for text in said:
        expect(text in lines[0], f"{text!r} in the error", lines[0])
    expect("Traceback" not in child.output, "no traceback", "one")


def folder_removed(ground: Ground) -> str:
    """A copy of the shared run loses its folder while it trains."""
    run = copied(ground.stopped(), ground.folder / "removed" / "run")
    child = ground.resume(run)
    goes_on(child, run)
    for _ in range(2):
        shutil.rmtree(run, ignore_errors=True)  # what was written meanwhile too
    child.until_said("checkpoint failed, the run goes on and earlier ones are kept: cannot write")
    child.tell(signal.SIGINT)
    ended(child, run, 2, "the run's end is not saved", "its folder was removed or moved", whole=False)
    expect(not run.exists(), "no folder made anew", "one")
    return "each save says so, no folder is made anew, exit code 2 at the end"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


FAULTS = (
    Fault(
        "checkpoints-torn",
        "checkpoints are torn",
        "they are skipped, loudly, and the next older complete one is taken",
        ("a checkpoint is torn (truncated, a flipped bit, a missing file)",),
        torn_checkpoints,
    ),
    Fault(
        "files-torn",
        "metrics.jsonl, progress.csv and environment.json are torn",
        "one line says so; the run goes on behind the last whole line",
        (
            "`metrics.jsonl` or `progress.csv` is shorter than the checkpoint remembers, or torn (a power cut)",
            "`metrics.jsonl`, `progress.csv`, `environment.json` or `run.log` is torn, missing, a folder, a pipe",
        ),
        torn_files,
    ),
    Fault(
        "files-other",
        "metrics.jsonl, progress.csv and run.log are folders and pipes, environment.json is missing",
        "what cannot be used is renamed to <name>.broken and begun anew, in one line",
        ("`metrics.jsonl`, `progress.csv`, `environment.json` or `run.log` is torn, missing, a folder, a pipe",),
        other_files,
    ),
    Fault(
        "config-edited",
        "config.toml was edited and the checkpoint does not fit",
        "refused in one line before anything is spawned, with the option, what it was and what it is; exit code 2",
        (
            "`config.toml` was edited and the checkpoint does not fit (workers, unrolls, capacity, samplers, "
            "optimiser, network, environment)",
        ),
        edited_config,
        ("actors",),
    ),
    Fault(
        "two-runs",
        "two runs want one folder",
        "refused before anything is spawned, exit code 2",
        ("two runs want one folder, or a run that is training is resumed",),
        two_runs,
    ),
    Fault(
        "folder-removed",
        "the run's folder is removed while it trains",
        "each save says so, and no folder is made anew; exit code 2 at the end",
        ("the run's folder is removed or moved while it trains",),
        folder_removed,
    ),
)
