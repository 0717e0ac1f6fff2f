"""``offbeat realtime probe``: what a preset needs of this machine to act in every frame."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from offbeat.commands.arguments import Scanned, env_factory, number, one_preset, scan, valued

if TYPE_CHECKING:
    from offbeat.bench.probe import Probe

HELP = """usage: offbeat realtime probe PRESET [--fps F] [--seconds S] [--json [FILE]] [--save FILE]
                              [--option value ...]

Measures one inference of batch 1, one update of the preset's batch and one frame of its environment on this machine,
and says how many inference and learning processes it needs at the frame rate, what cannot be met here and why, the
delay that results, and the commands that train with it.

  --fps F        environment steps per second; default: the environment's own (render_fps of Gymnasium, Atari's 60
                 frames), else it must be given
  --seconds S    how long each is measured (3)
  --json [FILE]  write everything as JSON: to FILE, or in place of the text
  --save FILE    write the times of the inferences, for 'offbeat realtime scaling --recording FILE'"""
OURS = ("realtime.fps", "realtime.inference", "delay.inference_frames", "delay.mode")
"""Options that the advised commands set themselves."""


def probe(arguments: list[str]) -> int:
    """Measure and print; 0 also where something cannot be met."""
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    scanned = scan(valued(arguments, "json", "-"), own=("fps", "seconds", "json", "save"))
    preset, named = one_preset(scanned, "realtime probe"), scanned.value("env")
    factory = env_factory(named)
    given = list(scanned.options)
    if factory is not None:
        scanned.options.append(("env", str(getattr(factory, "__name__", "own"))))
    from offbeat.bench.needs import as_dict, sentences, table
    from offbeat.bench.probe import probe as measure

    config = scanned.config(preset)
    fps, seconds = number(scanned, "fps", 0.0), number(scanned, "seconds", 3.0)
    found = measure(config, fps=fps, seconds=seconds, factory=factory)
    commands = advised(preset, given, found)
    if "save" in scanned.own:
        _save(scanned, found)
    if file := scanned.own.get("json"):
        text = json.dumps(as_dict(found.measured) | {"preset": preset, "env": config.env.id} | commands, indent=1)
        if file == "-":
            print(text)
            return 0
        Path(file).write_text(text + "\n")
    m, batch = found.measured, found.config.learner.batch_size
    print(f"{preset} on {config.env.id} at {m.fps:g} environment steps per second, {m.weights:,} weights\n")
    if batch != config.learner.batch_size:
        print(
            f"batches of {batch} in place of {config.learner.batch_size}: a fifo takes one unroll of one environment; "
            "on the wall clock, where a fifo would make the environment wait, batches are drawn uniformly\n"
        )
    print("\n".join([*table(m), "", *sentences(m), ""]))
    print(f"on the wall clock:       {commands['wall']}\nwith a simulated delay:  {commands['simulated']}")
    return 0


def advised(preset: str, given: list[tuple[str, str]], found: Probe) -> dict[str, str]:
    """The commands that train like this: on the wall clock, and with the same delay simulated."""
    kept = [text for name, value in given if name not in OURS for text in (f"--{name.replace('_', '-')}", value)]
    m = found.measured
    wall = ["--realtime.fps", f"{m.fps:g}", "--realtime.inference", str(m.inference_processes)]
    for index, sampler in enumerate(found.config.replay.samplers):
        if sampler.paces:  # it makes actors wait for the learner, which a realtime environment does for nobody
            wall += [f"--replay.samplers.{index}.kind", "uniform"]
    if 1 < m.learning_processes <= m.cores:
        wall += ["--learner.mode", "async", "--learner.count", str(m.learning_processes)]
    delayed = ["--delay.inference-frames", str(m.delay_frames)]
    start = ["offbeat", "train", preset, *kept]
    return {"wall": shlex.join([*start, *wall]), "simulated": shlex.join([*start, *delayed])}


def _save(scanned: Scanned, found: Probe) -> None:
    import numpy as np

    np.save(scanned.own["save"], found.inference, allow_pickle=False)
