"""``offbeat diagnose`` as it is called."""

from __future__ import annotations

import json

import pytest

from offbeat.cli import attempt
from offbeat.commands.diagnose import diagnose
from offbeat.errors import UserError
from tests.scoring.diagnose.broken import BROKEN, Run


def test_copy_says_by_its_exit_code_whether_it_was_learnt(tmp_path, capsys):
    short = ["copy", "--core", "lstm", "--length", "1", "--size", "16", "--learning-rate", "0.03", "--batch", "32"]
    assert diagnose([*short, "--minutes", "0.5", "--accuracy", "0.9", "--json", str(tmp_path / "copy.json")]) == 0
    assert (tmp_path / "copy.json").exists()
    assert diagnose(["copy", "--core", "lstm", "--length", "8", "--size", "16", "--minutes", "0.0001"]) == 1
    assert "right sequences" in capsys.readouterr().out


def test_rtrl_takes_a_preset_and_its_options(capsys):
    assert diagnose(["rtrl"]) == 0
    assert diagnose(["rtrl", "impala-catch", "--agent", "r2ac", "--learner.unroll-length", "3"]) == 0
    assert "5 unrolls of 3 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "'offbeat diagnose' needs a run folder, or one of: copy, rtrl; got nothing"),
        (
            ["cpoy"],
            "'cpoy' is no run folder: it does not exist; name one, or a folder of runs such as 'results'; did you",
        ),
        (["results", "--batches", "0"], "--batches=0 is out of range; it must be at least 1"),
        (["results", "--device", "gpu"], "--device='gpu' is not allowed; choose one of: cpu, cuda, cuda:N, auto"),
        (["results", "--bathces", "3"], "unknown option '--bathces' of 'offbeat diagnose'; did you mean '--batches'?"),
        (["copy", "r2ac"], "takes only its own options, got 'r2ac'"),
        (["copy", "--total-frames", "5"], "takes only its own options, got '--total_frames'"),
        (["copy", "--core", "gru"], "core='gru' is not allowed"),
        (["copy", "--lenght", "4"], "unknown option '--lenght'; did you mean '--length'?"),
        (["copy", "--json", "no/such/file.json"], "--json='no/such/file.json' cannot be written"),
    ],
)
def test_refuses_what_it_does_not_take(arguments, message):
    with pytest.raises(UserError) as raised:
        diagnose(arguments)
    assert message in str(raised.value)


def test_rtrl_takes_an_environment_of_ones_own(capsys, tmp_path, monkeypatch):
    (tmp_path / "recall.py").write_text(
        "import gymnasium, numpy as np\n"
        "class Recall(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(-1, 1, (7,), np.float32)\n"
        "    action_space = gymnasium.spaces.Discrete(3)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return np.zeros(7, np.float32), {}\n"
        "    def step(self, action):\n"
        "        return np.zeros(7, np.float32), 0.0, True, False, {}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert diagnose(["rtrl", "own", "--agent", "r2ac", "--env", "recall:Recall", "--agent.trace-decay", "0.5"]) == 0
    assert "agent.trace_decay=0.5 leaves out more, on purpose" in capsys.readouterr().out


def test_copy_takes_seed_0():
    short = ["copy", "--core", "lstm", "--length", "1", "--size", "4", "--batch", "4", "--minutes", "0.0001"]
    assert diagnose([*short, "--seed", "0", "--accuracy", "1"]) in (0, 1)


def test_help_says_what_each_does(capsys):
    assert attempt(["diagnose", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: offbeat diagnose RUN") and "offbeat diagnose copy" in said


def test_a_run_is_judged_and_its_exit_code_says_whether_something_was_found(tmp_path, capsys):
    small = {"actor.envs_per_worker": 2, "learner.batch_size": 2}
    run = Run("impala-catch", 400, small).make(tmp_path / "copy")
    code = diagnose([str(run), "--batches", "1", "--device", "cpu", "--json", str(tmp_path / "found.json")])
    said, told = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert code == 0 and told["findings"] == [] and told["run"] == str(run)
    assert "nothing unusual in " in said and "numbers: frames 4" in said
    rates = Run("impala-catch", 400, small | {"learner.learning_rate": 1e-7}).make(tmp_path / "slow")
    assert diagnose([str(rates), "--batches", "1"]) == 1
    assert "learning rate: learning rate never above " in capsys.readouterr().out


def test_a_run_that_is_called_copy_is_named_by_its_path(tmp_path, monkeypatch, capsys):
    run = Run("impala-catch", 400, {"actor.envs_per_worker": 2, "learner.batch_size": 2}).make(tmp_path / "copy")
    monkeypatch.chdir(run.parent)
    assert diagnose(["./copy", "--batches", "1"]) == 0
    assert "nothing unusual" in capsys.readouterr().out


def test_an_environment_of_ones_own_is_named_or_its_absence_said(tmp_path, capsys):
    factory = BROKEN["unpaid"].env
    small = {"actor.envs_per_worker": 2, "learner.batch_size": 2, "learner.unroll_length": 10}
    run = Run("own", 400, small, factory).make(tmp_path / "run")
    assert diagnose([str(run), "--batches", "1", "--env", "tests.scoring.diagnose.broken:Unpaid"]) == 1
    said = capsys.readouterr().out
    assert "rewards never seen: " in said and "judged from the record alone" not in said
    assert diagnose([str(run), "--batches", "1"]) == 1
    said = capsys.readouterr().out
    assert "rewards never seen: " in said and "judged from the record alone, as the run could not be played: " in said
