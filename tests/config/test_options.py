"""The list of options is read from the source, inherited ones included, and a misspelt one is told the nearest."""

from __future__ import annotations

import tomllib
from dataclasses import fields

import pytest

from offbeat.agents.make import agent_config_class, list_agents
from offbeat.config.known import ALSO_CALLED, help_text, suggest
from offbeat.config.options import all_options, markdown

OWN = ["apex", "dqn", "impala", "noop", "r2d2", "rainbow", "random"]


def of_agent(agent: str) -> dict[str, str]:
    """Option -> default as TOML."""
    return {option.name.removeprefix("agent."): option.default for option in all_options() if option.owner == agent}


def test_these_are_all_agents() -> None:
    assert set(OWN) <= set(list_agents())


@pytest.mark.parametrize("agent", OWN)
def test_every_option_of_an_agent_is_listed_once_with_its_own_default(agent: str) -> None:
    listed = [option.name for option in all_options() if option.owner == agent]
    assert len(listed) == len(set(listed))
    options, known = of_agent(agent), fields(agent_config_class(agent))
    assert list(options) == [field.name for field in known]
    for field in known:
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert tomllib.loads(f"x = {options[field.name]}") == {"x": default}, field.name


def test_an_agent_may_have_other_defaults_than_the_one_it_extends() -> None:
    assert [of_agent(name)["n_step"] for name in ("dqn", "apex", "r2d2")] == ["1", "3", "5"]
    assert [of_agent(name)["feature_size"] for name in ("dqn", "apex")] == ["0", "-1"]
    assert [of_agent(name)["loss"] for name in ("dqn", "apex")] == ['"huber"', '"square"']
    sources = {option.owner: option.source for option in all_options() if option.name == "agent.n_step"}
    assert sources["apex"] == "Horgan et al. 2018, section 4.1"
    assert sources["dqn"] == ""


def test_every_option_says_what_it_means() -> None:
    assert [option.name for option in all_options() if not option.text] == []


def test_help_and_page_have_a_section_for_every_agent() -> None:
    help_lines, page = help_text().splitlines(), markdown().splitlines()
    for agent in OWN:
        assert help_lines.count(f"agent {agent}:") == 1
        assert page.count(f"## agent {agent}") == 1


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("learner.lr", "; did you mean 'learner.learning_rate'?"),
        ("gamma", "; did you mean 'agent.discount'?"),
        ("agent.ladder_bas", "; did you mean 'agent.ladder_base'?"),
        ("burn-in", "; did you mean 'agent.burn_in'?"),
        ("agent.noisy_sigm", "; did you mean 'agent.noisy_sigma'?"),
        ("replay.sample_per_insert", "; did you mean 'replay.samples_per_insert'?"),
        ("batch_size", "; did you mean 'learner.batch_size'?"),
        ("qqqqqq", "; 'offbeat train --help' lists all options"),
    ],
)
def test_unknown_options_name_the_nearest(key: str, text: str) -> None:
    assert suggest(key) == text


def test_other_names_lead_to_options() -> None:
    assert set(ALSO_CALLED.values()) <= {option.name.rpartition(".")[2] for option in all_options()}
    for name, ours in ALSO_CALLED.items():
        assert f".{ours}" in suggest(name) or ours in suggest(name)
