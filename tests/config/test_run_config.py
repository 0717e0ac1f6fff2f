"""Configurations: from presets, files and overrides; what is refused, and in which words."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from offbeat.config import options, schema, validation
from offbeat.config.run_config import (
    RunConfig,
    apply_overrides,
    from_dict,
    load_preset,
    read_config,
    to_dict,
    to_toml,
)
from offbeat.config.validation import validate
from offbeat.envs.base import EnvUnavailable
from offbeat.errors import UserError
from offbeat.replay import fifo, prioritised, uniform


def refusal(overrides: dict[str, object], preset: str = "impala-catch") -> str:
    """The message with which a preset with these overrides is refused."""
    with pytest.raises((UserError, EnvUnavailable)) as caught:
        validate(apply_overrides(load_preset(preset), list(overrides.items())))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_toml_gives_the_same_configuration_back() -> None:
    config = apply_overrides(load_preset("impala-atari"), [("agent.hidden_size", "32,16"), ("learner.epsilon", "1e-8")])
    assert from_dict(tomllib.loads(to_toml(config))) == config


def test_read_config_reads_what_to_toml_wrote(tmp_path: Path) -> None:
    config = load_preset("impala-tmaze")
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert read_config(tmp_path / "config.toml") == config
    assert config.preset == "impala-tmaze"


def test_an_empty_file_is_the_default_agent_with_its_defaults() -> None:
    config = from_dict({})
    assert config.agent_name == "impala"
    assert config.learner == RunConfig().learner
    assert type(config.agent).__name__ == "Config"


def test_eval_env_follows_env_but_for_lives_and_its_own_keys() -> None:
    data = {"env": {"id": "Breakout", "sticky": 0.25, "life_loss": "terminal"}, "eval_env": {"sticky": 0.0}}
    config = from_dict(data)
    assert config.env.life_loss == "terminal"
    assert config.eval_env == replace(config.env, life_loss="ignore", sticky=0.0)


def test_environments_of_validations_and_final_sets_follow_those_of_evaluations() -> None:
    data = {
        "env": {"id": "Breakout", "life_loss": "terminal"},
        "eval_env": {"sticky": 0.25},
        "valid_env": {"noop_max": 9},
    }
    config = from_dict(data)
    assert config.valid_env == replace(config.eval_env, noop_max=9) and config.final_env == config.eval_env
    changes = [("env", "Pong"), ("env.noop_max", 5), ("env.sticky", 0.5), ("env.life_loss", "end_episode")]
    config = apply_overrides(
        config, [*changes, ("final_env.frame_skip", 2), ("eval_env.frame_skip", 3), ("valid-env", "Qbert")]
    )
    assert [env.id for env in (config.env, config.eval_env, config.valid_env, config.final_env)] == ["Pong"] * 2 + [
        "Qbert",
        "Pong",
    ]
    assert (config.eval_env.noop_max, config.valid_env.noop_max, config.final_env.noop_max) == (5, 9, 5)
    assert {env.sticky for env in (config.eval_env, config.valid_env, config.final_env)} == {0.25}
    assert (config.eval_env.frame_skip, config.valid_env.frame_skip, config.final_env.frame_skip) == (3, 3, 2)
    assert {env.life_loss for env in (config.eval_env, config.valid_env, config.final_env)} == {"ignore"}
    assert from_dict(to_dict(config)) == config
    with pytest.raises(UserError, match=r"valid_env\.sticky=1\.5 is out of range"):
        validation.check_ranges(apply_overrides(config, [("valid_env.sticky", 1.5)]))


def test_overrides_of_env_reach_eval_env_unless_it_differs() -> None:
    config = from_dict({"eval_env": {"sticky": 0.25}})
    config = apply_overrides(
        config, [("env", "Breakout"), ("env.sticky", "0.1"), ("env.life_loss", "terminal"), ("env.frame-stack", "2")]
    )
    assert (config.eval_env.id, config.eval_env.frame_stack) == ("Breakout", 2)
    assert (config.eval_env.sticky, config.eval_env.life_loss) == (0.25, "ignore")
    assert apply_overrides(config, [("eval_env.life_loss", "terminal")]).eval_env.life_loss == "terminal"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("total_frames", "30e6", 30_000_000),
        ("total-frames", "1_000", 1000),
        ("learner.learning-rate", "1", 1.0),
        ("learner.compile", "yes", True),
        ("learner.compile", False, False),
        ("learner.optimizer", "adam", "adam"),
        ("agent.hidden_size", "128,64", (128, 64)),
        ("agent.hidden_size", [8], (8,)),
        ("replay.samplers.0.max_pending", "3", 3),
    ],
)
def test_values_are_converted(key: str, text: object, value: object) -> None:
    config = apply_overrides(load_preset("impala-catch"), [(key, text)])
    found: object = config
    for part in key.replace("-", "_").split("."):
        found = found[int(part)] if part.isdecimal() else getattr(found, part)  # type: ignore[index]
    assert found == value
    assert type(found) is type(value)


def test_samplers_can_be_given_as_a_list() -> None:
    text = '[{kind = "fifo", share = 0.5}, {kind = "uniform", share = 0.5, window = 500}]'
    config = apply_overrides(load_preset("impala-catch"), [("replay.samplers", text), ("replay.capacity", "10_000")])
    assert config.replay.samplers == (fifo.Config(share=0.5), uniform.Config(share=0.5, window=500))
    validate(config)


def test_another_agent_starts_from_its_defaults_whatever_the_order() -> None:
    config = apply_overrides(load_preset("impala-catch"), [("agent.discount", "0.5"), ("agent", "random")])
    assert (config.agent_name, config.agent.discount) == ("random", 0.5)
    assert not hasattr(config.agent, "entropy_cost")


def test_presets_stack(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[preset]\nextends = "impala-tmaze"\n[learner]\nbatch_size = 8\n[env]\nlength = 5\n')
    config, base = load_preset(path), load_preset("impala-tmaze")
    assert config.learner == replace(base.learner, batch_size=8)
    assert config.env == replace(base.env, length=5)
    assert config.agent == base.agent
    assert config.preset == "mine"
    path.write_text('[preset]\nextends = "impala-tmaze"\n[agent]\nname = "random"\n')
    assert load_preset(path).agent_name == "random"


def test_options_in_the_section_of_what_a_preset_extends_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[preset]\nextends = "impala-tmaze"\ntotal_frames = 5\n')
    with pytest.raises(UserError, match=r"mine.toml: 'total_frames' in .preset. is read by nobody, .* write it above"):
        load_preset(str(path))


def test_a_preset_that_extends_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.toml"
    path.write_text(f'[preset]\nextends = "{path}"\n')
    with pytest.raises(UserError, match="extends itself"):
        load_preset(path)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"learner.batchsize": "8"}, ["unknown option 'learner.batchsize'", "'learner.batch_size'"]),
        ({"lerner.batch_size": "8"}, ["unknown option 'lerner'", "did you mean"]),
        ({"learner": "8"}, ["'learner' is a section"]),
        ({"learner.batch_size": "many"}, ["learner.batch_size='many' is not a whole number"]),
        ({"learner.batch_size": "2.5"}, ["learner.batch_size='2.5' is not a whole number"]),
        ({"learner.prefetch": "many"}, ["learner.prefetch='many' is not a whole number or auto"]),
        ({"learner.prefetch": "none"}, ["learner.prefetch='none' is not a whole number or auto"]),
        ({"learner.prefetch": "-1"}, ["learner.prefetch=-1 is out of range", "at least 0"]),
        ({"learner.assemblers": "0"}, ["learner.assemblers=0 is out of range", "at least 1"]),
        (
            {"learner.assemblers": "4"},
            ["learner.assemblers=4", "learner.prefetch=2", "3 batches", "prefetch=3 or more"],
        ),
        ({"learner.learning_rate": "fast"}, ["'fast' is not a number"]),
        ({"learner.compile": "maybe"}, ["'maybe' is not true or false"]),
        ({"learner.optimizer": "sgd"}, ["learner.optimizer='sgd'", "rmsprop, adam"]),
        ({"replay.samplers.3.share": "1"}, ["replay.samplers.3.share", "below 1"]),
        ({"agent": "impalla"}, ["unknown agent 'impalla'", "did you mean 'impala'"]),
        ({"agent.entropi_cost": "1"}, ["agent.entropi_cost", "'agent.entropy_cost'"]),
        ({"agent.discount": "2"}, ["discount=2.0 is out of range"]),
        ({"learner.batch_size": "0"}, ["learner.batch_size=0 is out of range", "at least 1"]),
        ({"learner.learning_rate": "-1"}, ["learner.learning_rate=-1.0 is out of range", "at least 0"]),
        ({"learner.learning_rate": "inf"}, ["learner.learning_rate=inf is out of range", "finite, at least 0"]),
        ({"learner.learning_rate": "nan"}, ["learner.learning_rate='nan' is not a number"]),
        ({"env.reward_scale": "-inf"}, ["env.reward_scale=-inf is out of range", "finite"]),
        ({"eval_env.sticky": "1.5"}, ["eval_env.sticky=1.5 is out of range", "[0, 1]"]),
        ({"seed": "-3"}, ["seed=-3 is out of range"]),
        ({"env": "toy/cach"}, ["toy/cach", "toy/catch"]),
        ({"env": "Pongg"}, ["Pongg", "did you mean Pong"]),
        ({"env.sticky": "0.5"}, ["[env]", "sticky=0.5", "toy/catch"]),
        ({"eval_env": "toy/tmaze"}, ["eval_env 'toy/tmaze' has other observations"]),
        ({"actor.batch": "64"}, ["actor.batch=64 is more than actor.envs_per_worker=32"]),
        ({"replay.samplers.0.kind": "unifrom"}, ["unknown sampler 'unifrom'; did you mean 'uniform'?"]),
        ({"replay.samplers.0.window": "5"}, ["unknown option 'replay.samplers.0.window'"]),
        ({"replay.samplers": [{"kind": "uniform", "alpha": 1}]}, ["unknown option 'replay.samplers.0.alpha'"]),
        ({"replay.samplers": "fifo"}, ["replay.samplers.0='fifo' is not a section"]),
        ({"evaluation.episodes": "25"}, ["evaluation.episodes=25", "evaluation.envs=10", "multiple of 10"]),
        ({"inference.min_batch": "600"}, ["inference.min_batch=600 is more than inference.max_batch=512"]),
        ({"device": "gpu"}, ["device='gpu' is not allowed", "cuda:N"]),
    ],
)
def test_what_is_wrong_is_said(overrides: dict[str, object], parts: list[str]) -> None:
    text = refusal(overrides)
    for part in parts:
        assert part in text, text


def test_a_number_may_have_a_word_beside_it_and_both_come_back_from_toml(tmp_path: Path) -> None:
    for given, meant in (("auto", "auto"), ("3", 3), (0, 0)):
        config = apply_overrides(load_preset("impala-catch"), [("learner.prefetch", given)])
        assert config.learner.prefetch == meant
        validate(config)
        (tmp_path / "config.toml").write_text(to_toml(config))
        assert read_config(tmp_path / "config.toml").learner.prefetch == meant
    (shown,) = [option for option in options.all_options() if option.name == "learner.prefetch"]
    assert (shown.values, shown.range, shown.default) == ("int or auto", ">= 0", "2")


def test_a_batch_that_cannot_be_split_names_the_multiple() -> None:
    samplers = [{"kind": "fifo", "share": 0.25}, {"kind": "uniform", "share": 0.75}]
    overrides = {"replay.samplers": samplers, "replay.capacity": 10_000, "learner.batch_size": 10}
    assert refusal(overrides) == "batch_size=10 cannot be split 0.25/0.75 between samplers; use a multiple of 4"
    thirds = [{"kind": "fifo", "share": 1 / 3}, {"kind": "uniform", "share": 2 / 3}]
    assert "use a multiple of 3" in refusal({**overrides, "replay.samplers": thirds})
    validate(apply_overrides(load_preset("impala-catch"), {**overrides, "learner.batch_size": 12}.items()))


def test_shares_are_checked() -> None:
    half = [{"kind": "fifo", "share": 0.5}]
    assert "sum to 0.5; they must be at least 0 and sum to 1" in refusal({"replay.samplers": half})
    assert "replay.samplers is empty" in refusal({"replay.samplers": []})


def test_another_kind_keeps_what_both_know() -> None:
    catch = apply_overrides(load_preset("apex-catch"), [("replay.samplers.0.kind", "uniform")])
    assert catch.replay.samplers == (uniform.Config(min_rows=1_000),)
    again = apply_overrides(catch, [("replay.samplers.0.kind", "prioritised")])
    assert again.replay.samplers == (prioritised.Config(min_rows=1_000),)


def test_a_bound_on_the_lag_needs_a_fifo() -> None:
    with pytest.raises(UserError, match=r"learner\.max_policy_lag=4 has no effect without a fifo"):
        validate(apply_overrides(load_preset("apex-catch"), [("learner.max_policy_lag", 4)]))


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device='cuda', but" in refusal({"device": "cuda"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "only 2 GPUs; use cuda:0 to cuda:1" in refusal({"learner.device": "cuda:2"})
    validation.check_device("device", "cuda:1")


def test_a_run_folder_in_use_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    validate(replace(load_preset("impala-catch"), out=str(run)))  # an empty folder is free
    (run / "config.toml").write_text("")
    assert f"run folder '{run}' is already in use" in refusal({"out": str(run)})
    validate(replace(load_preset("impala-catch"), out=str(run)), new_run=False)
    assert "is a file" in refusal({"out": str(run / "config.toml")})
    with pytest.raises(UserError, match=r"another with --out, or go on with the run in it: offbeat resume mine$"):
        validate(replace(load_preset("impala-catch"), out=str(run)), go_on="offbeat resume mine")
    (run / "config.toml").rename(run / "notes.txt")  # no run
    with pytest.raises(UserError, match=r"name another with --out$"):
        validate(replace(load_preset("impala-catch"), out=str(run)), go_on="offbeat resume mine")


def test_too_little_memory_or_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, gib = load_preset("impala-catch"), validation.GIB
    monkeypatch.setattr(validation, "available_memory", lambda: 4 * gib)
    monkeypatch.setattr(validation, "free_disk", lambda path: 9 * gib)
    validation.check_resources(config, 2 * gib, tmp_path)
    with pytest.raises(UserError, match=r"needs 5.00 GiB of memory .* 4.00 GiB are available; lower replay.capacity"):
        validation.check_resources(config, 5 * gib, tmp_path)
    with pytest.raises(UserError, match=r"up to 12.06 GiB of disk .* 9.00 GiB are free .* lower checkpoint.keep"):
        validation.check_resources(config, 3 * gib, tmp_path)
    without = replace(config, checkpoint=replace(config.checkpoint, replay=False))
    validation.check_resources(without, 3 * gib, tmp_path)


@pytest.mark.parametrize(("lag", "every"), [(1, 2), (1, 5), (4, 5)])
def test_a_lag_that_no_publication_can_keep_is_refused(lag: int, every: int) -> None:
    options = {"learner.max_policy_lag": lag, "learner.publish_every": every}
    text = refusal(options)
    assert f"learner.max_policy_lag={lag} is less than learner.publish_every={every}" in text
    assert f"use {every} or more, or 0 for no bound" in text
    for fine in (0, every, every + 1):
        validate(apply_overrides(load_preset("impala-catch"), {**options, "learner.max_policy_lag": fine}.items()))


def test_optional_values_and_lists_of_text() -> None:
    assert schema.convert("none", float | None, "x") is None
    assert schema.convert("2", float | None, "x") == 2.0
    assert schema.convert("a, b", tuple[str, ...], "x") == ("a", "b")
    assert schema.plain_value(None) == "none"
    with pytest.raises(UserError, match="x has 1 items, 2 are needed"):
        schema.convert([1], tuple[int, int], "x")


def test_every_field_is_listed_and_documented() -> None:
    listed = {option.name: option for option in options.all_options()}
    data = to_dict(load_preset("impala-catch"))
    for section, values in data.items():
        if section != "preset":
            for key in values if isinstance(values, dict) else [""]:
                assert (f"{section}.{key}" if key else section) in listed
    undocumented = [name for name, option in listed.items() if not option.text]
    assert undocumented == []


def test_option_facts_are_taken_from_the_docstrings() -> None:
    listed = {option.name: option for option in options.all_options()}
    batch = listed["learner.batch_size"]
    assert (batch.default, batch.values, batch.range) == ("32", "int", ">= 1")
    assert "Espeholt" in batch.source
    assert "Source" not in batch.text
    assert listed["env.frame_skip"].unit == "frames"
    assert listed["learner.optimizer"].values == "rmsprop, adam"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"engine": "inline"}, 'learner.count=2 with engine="inline": several learners run freely'),
        ({"deterministic": True}, "learner.count=2 with deterministic=true: several learners run freely"),
        (
            {"learner.batch_size": 1},
            "learner.count=2: each needs an item of a batch at least; got learner.batch_size=1",
        ),
        ({"learner.max_batch_age": 3}, "learner.count=2 with learner.max_batch_age=3: what was dealt"),
        ({"learner.mode": "async"}, 'learner.count=2 with replay.samplers.0.kind="prioritised": it keeps books'),
        (
            {"learner.mode": "async", "replay.samplers": [{"kind": "uniform", "share": 0.5}, {"share": 0.5}]},
            'learner.count=2 with replay.samplers.1.kind="fifo": it keeps books',
        ),
    ],
)
def test_several_learners_are_refused_where_they_cannot_work(options: dict[str, object], text: str) -> None:
    assert text in refusal({"learner.count": 2, **options}, "apex-catch")


def test_several_learners_may_share_uniform_replay() -> None:
    options = {"learner.count": 2, "learner.mode": "async", "replay.samplers": [{"kind": "uniform"}]}
    validate(apply_overrides(load_preset("apex-catch"), options.items()))
    validate(apply_overrides(load_preset("debug"), [("learner.mode", "async")]))
