"""Lists of games in files and on the command line: two ways to write one thing, never both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offbeat.config.auto import decide
from offbeat.config.env_lists import check_one_way, listed, with_turns
from offbeat.config.run_config import apply_overrides, from_dict, load_preset, read_config, to_dict, to_toml
from offbeat.config.validation import check_lists
from offbeat.envs.base import EnvConfig
from offbeat.errors import UserError

BOTH = ["toy/catch", "toy/copy"]


@pytest.mark.parametrize(
    ("given", "ids", "env_id"),
    [
        ({"ids": BOTH}, ("toy/catch", "toy/copy"), "toy/catch,toy/copy"),
        ({"ids": "toy/catch, toy/copy"}, ("toy/catch", "toy/copy"), "toy/catch,toy/copy"),
        ({"id": "toy/catch , toy/copy"}, ("toy/catch", "toy/copy"), "toy/catch,toy/copy"),
        ({"id": "toy/catch,toy/copy", "ids": BOTH}, ("toy/catch", "toy/copy"), "toy/catch,toy/copy"),
        ({"id": "toy/catch"}, (), "toy/catch"),
        ({"id": "toy/catch", "ids": []}, (), "toy/catch"),
    ],
)
def test_both_ways_mean_the_same(given: dict[str, Any], ids: tuple[str, ...], env_id: str) -> None:
    found = listed(given | {"length": 5}, "env")
    assert (found["ids"], found["id"], found["length"]) == (ids, env_id, 5)
    config = from_dict({"env": given})
    for env in (config.env, config.eval_env, config.valid_env, config.final_env):
        assert (env.ids, env.id) == (ids, env_id), "the others follow"
    assert from_dict(to_dict(config)) == config


def test_both_at_once_are_refused() -> None:
    with pytest.raises(UserError, match=r"env.id='toy/tmaze' and env.ids=.* were both given"):
        from_dict({"env": {"id": "toy/tmaze", "ids": BOTH}})
    with pytest.raises(UserError, match=r"env.id and env.ids were both given"):
        apply_overrides(from_dict({}), [("env", "toy/tmaze"), ("env.ids", "toy/catch,toy/copy")])
    check_one_way({"env.id", "eval_env.ids"}, ("env", "eval_env"))
    with pytest.raises(UserError, match="is not a list of ids"):
        from_dict({"env": {"ids": [1, 2]}})


def test_an_option_goes_before_what_a_preset_plays(tmp_path: Path) -> None:
    preset = load_preset("impala-catch")
    many = apply_overrides(preset, [("env", "toy/catch,toy/copy")])
    assert many.env.ids == many.eval_env.ids == many.final_env.ids == ("toy/catch", "toy/copy")
    one = apply_overrides(many, [("env.id", "toy/tmaze")])
    assert (one.env.ids, one.env.id, one.eval_env.id) == ((), "toy/tmaze", "toy/tmaze")
    apart = apply_overrides(many, [("eval_env.ids", "toy/copy,toy/tmaze"), ("env", "toy/drift,toy/dict")])
    assert apart.env.id == "toy/drift,toy/dict" and apart.eval_env.id == "toy/copy,toy/tmaze"
    file = tmp_path / "own.toml"
    file.write_text('[preset]\nextends = "impala-catch"\n[env]\nids = ["toy/catch", "toy/copy"]\n')
    assert load_preset(file).env.ids == ("toy/catch", "toy/copy")
    above = tmp_path / "above.toml"
    above.write_text(f'[preset]\nextends = "{file}"\n[env]\nid = "toy/tmaze"\n')
    assert load_preset(above).env.games == ("toy/tmaze",)
    (tmp_path / "config.toml").write_text(to_toml(many))
    assert read_config(tmp_path / "config.toml") == many


def test_turns_are_equal_parts_of_the_run_unless_they_are_given() -> None:
    env = EnvConfig(ids=("a", "b", "c"), several="in_turn", turns=2)
    assert with_turns(env, 6001).turn_frames == 1001
    assert with_turns(EnvConfig(ids=("a", "b"), several="in_turn", turns=0), 100).turn_frames == 50
    assert with_turns(EnvConfig(ids=("a",), several="in_turn", turn_frames=7), 100).turn_frames == 7
    assert with_turns(EnvConfig(ids=("a", "b")), 100).turn_frames == 0
    config = from_dict({"total_frames": 900, "device": "cpu", "env": {"ids": BOTH, "several": "in_turn"}})
    assert decide(config).env.turn_frames == 450


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"actor.envs_per_worker": 1}, "names 2 games at once and there are 1 environments"),
        ({"actor.batch": 2}, "are stepped all at once"),
        ({"realtime.fps": 60}, "a realtime run has one environment"),
    ],
)
def test_lists_that_no_role_could_play_are_refused(options: dict[str, Any], said: str) -> None:
    config = from_dict({"env": {"ids": BOTH}, "actor": {"workers": 1, "envs_per_worker": 4}})
    check_lists(config)
    with pytest.raises(UserError, match=said):
        check_lists(apply_overrides(config, options.items()))


@pytest.mark.parametrize("text", ["toy/catch,", ",toy/catch", "toy/catch,,toy/tmaze"])
def test_a_list_with_an_empty_id_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="one of the ids in this list is empty"):
        listed({"id": text}, "env")
