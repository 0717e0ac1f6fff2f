"""docs/adding_an_algorithm.md as a newcomer follows it: the package that it shows is installed, trains and is used."""

from __future__ import annotations

import re

import pytest

from tests.outside.document import AGENTS, DOCUMENT, Project, snippets

QUICK = {
    "reinforce": (40_000, 100),
    "munchausen": (4_000, 60),
}
"""Agent -> frames, and what it must score then; random play scores 22."""
OUTPUTS = {"reinforce": ["action", "policy", "state", "value"], "munchausen": ["action", "q", "state"]}
"""Agent -> what its exported network says that it gives."""
USED = """
import json, offbeat, torch
scores = offbeat.evaluate({run!r}, episodes=10)
assert scores.returns.mean() > {least} / 2, scores
assert offbeat.resume({run!r}, total_frames={frames} + 200).finished
extra = {{"offbeat.json": ""}}
torch.export.load(offbeat.export({run!r}), extra_files=extra)
assert sorted(json.loads(extra["offbeat.json"])["outputs"]) == {outputs}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The package, installed."""
    return Project(tmp_path_factory.mktemp("project"))


def score(said: str) -> float:
    """The mean of the last evaluation that a command printed."""
    return float(re.findall(r"mean[= ]+(-?[\d.]+)", said)[-1])


@pytest.mark.parametrize("name", [pytest.param("reinforce", marks=pytest.mark.slow), "munchausen"])
def test_an_agent_trains_goes_on_is_scored_and_exported(name: str, project: Project) -> None:
    frames, least = QUICK[name]
    run = f"results/{name}"
    options = ["--evaluation.every-frames", "0", "--evaluation.episodes", "20", "--log.tensorboard", "false"]
    said = project.offbeat(
        "train", f"{name}.toml", "--out", run, "--engine", "inline", "--total-frames", str(frames), *options
    )
    assert score(said) > least
    project.python("-c", USED.format(run=run, least=least, frames=frames, outputs=OUTPUTS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_its_preset_solves_cartpole(name: str, project: Project) -> None:
    """A mean of 475 over 100 greedy episodes."""
    said = project.offbeat("train", f"{name}.toml", "--out", f"results/{name}-whole")
    assert score(said) >= 475


def test_what_is_installed_is_listed_with_its_options(project: Project) -> None:
    agents = project.offbeat("agents")
    assert all(re.search(rf"^{name} +my-agents 1\.0  ", agents, re.M) for name in AGENTS)
    said = project.offbeat("train", "--help")
    assert "\nagent munchausen:\n" in said and "  --agent.bonus\n      Alpha, weight of the log-probability" in said


def test_the_examples_of_looking_inside_run(project: Project) -> None:
    pieces = snippets()
    assert len(pieces) == 4
    (project.home / "inside.py").write_text("\n".join(pieces))
    said = project.python("inside.py")
    assert "head.weight " in said and "aten::addmm" in said
    printed = [re.split(r"\], ", line)[0] for line in said.splitlines() if re.match(r"  [\w.\[\]']+: ", line)]
    shown = DOCUMENT.read_text().partition("3 batches after 100 updates, each a Transition:\n")[2].partition("```")[0]
    assert [re.split(r"\], ", line)[0] for line in shown.splitlines()] == printed
    assert list(project.home.glob("results/CartPole*")) == []


def test_a_gradient_that_is_wrong_is_found(project: Project) -> None:
    """The check of the page fails where a part of the gradient is held back."""
    pieces = [piece for piece in snippets() if "gradcheck" in piece]
    wrong = "seen.agent.network.head.bias.register_hook(lambda gradient: gradient * 1.01)\nweights = tuple("
    program = pieces[0].replace("weights = tuple(", wrong)
    assert "GradcheckError" in project.python("-c", program, succeeds=False)
