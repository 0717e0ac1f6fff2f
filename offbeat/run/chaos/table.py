"""All faults in the order in which they happen, and the rows of docs/faults.md that are left to tests."""

from __future__ import annotations

from offbeat.errors import unknown
from offbeat.run.chaos import environments, files, outputs, roles, signals
from offbeat.run.chaos.ground import Fault

FAULTS: tuple[Fault, ...] = (
    *roles.FAULTS, *signals.FAULTS, *outputs.FAULTS, *files.FAULTS, *environments.FAULTS,
)  # fmt: skip
"""They happen in this order; most share one run, and those that have one of their own leave it alone."""

ELSEWHERE = {
    "an update leads to weights or statistics that are not finite": (
        "runtime/test_optimiser.py, runtime/test_learner.py, runtime/test_saved_learner.py, test_train.py"
    ),
    (
        "an agent of your own does not keep to its protocol: what `act` gives has other names, shapes or "
        "numbers than `row_extras` and `initial_state` say"
    ): "agents/test_contract.py",
    "a loss gives something else than a `LossOutput`, or a count that is not above 0": "runtime/test_outputs.py",
    "a sampler of your own chooses too few items, or rows that are not there": "replay/test_strangers.py",
    "a role of your own ends by itself": "conformance/test_another_role.py",
    "what a run's own agent or torso was is not said when it goes on, is loaded or is scored": (
        "runtime/test_outputs.py, networks/test_own_torso.py"
    ),
    "the learner raises": "test_train.py",
    "the learner is killed in the middle of writing what it would be rebuilt from": "runtime/test_mirror.py",
    "a run can make no progress: no batch will ever come": "test_going_on.py",
    "TensorBoard cannot be imported, the dashboard or the curve cannot be drawn": "test_metrics.py",
    "a hook of the user's raises": "run/test_hooks.py, outside/test_hooks_outside.py",
    "a hook is slow": "run/test_hooks.py",
    (
        "a checkpoint that somebody else made or broke, also with right sums: deep or huge JSON, a FIFO, "
        "folder, device or link in the place of a file, headers that lie, pickles, counters that are no "
        "numbers"
    ): "test_foreign_checkpoints.py",
    "a checkpoint is removed or replaced while it is read (`checkpoint.keep = 1` beside `offbeat eval`)": (
        "test_checkpoint_readers.py"
    ),
    "weights of another network are evaluated, loaded, or given to `train --from`": "test_resumable.py",
    (
        "`train --from RUN --with-optimiser` names a run of another optimiser, weights without statistics, or "
        "no run at all"
    ): "run/test_from_run.py",
    "a stem of other shapes, or a pickle, is given to `train --stem`": "run/test_stem.py, runtime/test_stem.py",
    "the best weights cannot be saved, or the run is killed while they are": (
        "run/test_validated_runs.py, storage/test_named.py, test_conductor.py"
    ),
    "a validation is broken off by a stop": "test_rounds.py, test_validations.py",
    "a container allows less memory than the machine has, in whichever group around the process": "test_memory.py",
    "actors write while the streams are saved": "runtime/test_saving_streams.py",
    "samplers and sizes that could never give a batch": "replay/test_make.py, runtime/test_rate_control.py",
    "a deterministic run is resumed from a checkpoint without streams": "runtime/test_resume_without_streams.py",
    "the run's last checkpoint cannot be written": "test_train.py",
    "a campaign gets Ctrl-C or SIGTERM, or is killed": "test_campaign_stopped.py, test_campaign_at_once.py",
    "a run of a campaign fails beside others": "test_campaign_at_once.py",
    "a campaign meets a run that somebody else trains, or another campaign in its folder": ("test_campaign_stopped.py"),
    "a finished run is resumed": "test_going_on.py",
    "a run of a GPU is resumed where there is none": "test_going_on.py, scoring/test_evaluate.py",
    "a batch does not fit into the GPU's memory": "runtime/test_halving.py",
    "a run with a linear schedule is given another length": "test_going_on.py",
    "many runs in one process": "test_leftovers.py",
}
"""First column of a row of docs/faults.md that is not made to happen here -> the tests that do, below ``tests``."""


def faults_named(names: list[str]) -> list[Fault]:
    """The faults of these names, in the order of the table; all where there are none. UserError for unknown ones."""
    known = {fault.name: fault for fault in FAULTS}
    for name in names:
        if name not in known:
            raise unknown("fault", name, known)
    return [fault for fault in FAULTS if not names or fault.name in names]


def listed() -> str:
    """The names, what happens and what is promised; then what is left to tests."""
    width = max(len(fault.name) for fault in FAULTS)
    lines = [f"{fault.name:<{width}}  {fault.title}: {fault.promise}" for fault in FAULTS]
    lines += ["", "not made to happen here; each has a test that does:"]
    return "\n".join([*lines, *(f"  {what} ({tests})" for what, tests in ELSEWHERE.items())])
