"""Every preset loads, can run here, and says where its numbers come from."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import offbeat
from offbeat.agents.q_agent import QConfig
from offbeat.config.options import SHORT, all_options
from offbeat.config.presets import FOLDER, find_preset, list_presets
from offbeat.config.run_config import RunConfig, from_dict, load_preset, to_toml
from offbeat.config.validation import validate
from offbeat.envs.atari_games import find_game
from offbeat.envs.base import EnvUnavailable
from offbeat.errors import UserError

PRESETS = sorted(path.stem for path in FOLDER.glob("*.toml"))
STRUCTURE = ("[", "id =", "name =", "torso =", "core =", "extends =")
"""Beginnings of lines that need no source: they say what the preset is about."""


def test_there_are_presets() -> None:
    assert {"impala-atari", "impala-cartpole", "impala-catch", "impala-tmaze", "debug"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_and_validates(name: str) -> None:
    config = load_preset(name)
    assert config.preset == name
    assert from_dict(tomllib.loads(to_toml(config))) == config
    try:
        validate(config)
    except EnvUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_describes_itself_and_sources_every_line(name: str) -> None:
    lines = (FOLDER / f"{name}.toml").read_text().splitlines()
    assert len(list_presets()[name]) > 20
    bare = [line for line in lines if line.strip() and "#" not in line and not line.startswith(STRUCTURE)]
    assert bare == []


def test_unknown_presets_name_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'impala-atary'; did you mean 'impala-atari'\?"):
        find_preset("impala-atary")
    with pytest.raises(UserError, match=r"unknown preset 'xyzzy'; 'offbeat presets' lists them"):
        find_preset("xyzzy")
    with pytest.raises(UserError, match=r"preset file 'no/such.toml' does not exist"):
        find_preset("no/such.toml")


def test_a_file_that_is_no_toml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[learner\nbatch_size = 3\n")
    with pytest.raises(UserError, match=r"broken.toml is not TOML: .*line 1"):
        load_preset(path)


TINY = {
    "engine": "inline", "actor": {"workers": 1, "envs_per_worker": 2, "append_rows": 5, "inference": "actor"},
    "learner": {"batch_size": 2, "unroll_length": 5}, "evaluation": {"every_frames": 0, "at_end": False},
    "validation": {"every_minutes": 0.0}, "final": {"sets": 0, "values": [], "train_set": False},
    "log": {"tensorboard": False, "dashboard": False},
}  # fmt: skip
"""Lays itself over any preset so that it runs for seconds."""


FEW_ITEMS = {"capacity": 400, "samples_per_insert": 1.0}
"""The same for replay of transitions and sequences: papers keep millions of rows."""


def tiny(name: str) -> dict[str, Any]:
    """What makes a preset run for seconds, with its own sampler."""
    config = load_preset(name)
    if not isinstance(config.agent, QConfig):
        return TINY if len(config.replay.samplers) < 2 else mixed(config)
    sampler = asdict(config.replay.samplers[0]) | {"min_rows": 20}
    short: dict[str, Any] = {"length": 5, "burn_in": 5, "period": 5} if config.agent_name == "r2d2" else {}
    if config.agent.torso_width > 1:
        short = {"torso_width": 0.0625}
    return TINY | {"replay": FEW_ITEMS | {"samplers": [sampler]}, "agent": short}


def mixed(config: RunConfig) -> dict[str, Any]:
    """The same for batches from several samplers, each as small as their shares can split."""
    shares = [Fraction(sampler.share).limit_denominator(100) for sampler in config.replay.samplers]
    batch = math.lcm(*(share.denominator for share in shares))
    small = {"size": 200, "min_rows": 20}
    samplers = [asdict(sampler) for sampler in config.replay.samplers]
    samplers = [sampler | {name: value for name, value in small.items() if name in sampler} for sampler in samplers]
    return TINY | {
        "actor": TINY["actor"] | {"envs_per_worker": max(2, fresh_of(config, batch))},
        "learner": TINY["learner"] | {"batch_size": batch},
        "replay": {"capacity": 400, "samplers": samplers},
    }


def fresh_of(config: RunConfig, batch: int) -> int:
    """How many unrolls of a batch are from a fifo."""
    return round(batch * sum(sampler.share for sampler in config.replay.samplers if sampler.kind == "fifo"))


TRAINED = [
    pytest.param(name, marks=pytest.mark.slow)
    if name.startswith(
        (
            "realtime-size-",
            "realtime-pokemon-",
            "laser-atari",
            "r2ac-atari-m",
            "r2ac-atari-g",
            "r2ac-atari-b",
            "r2ac-atari-seaquest",
        )
    )
    else name
    for name in PRESETS
]
"""Those that differ in a number only are for the slow tests."""


@pytest.mark.parametrize("name", TRAINED)
def test_a_preset_trains(name: str, tmp_path: Path) -> None:
    config = load_preset(name)
    atari = find_game(config.env.id) is not None
    try:
        skip = config.env.frame_skip if atari else 1
        result = offbeat.train(name, out=str(tmp_path / "run"), total_frames=100 * skip, **tiny(name))
    except EnvUnavailable as error:
        pytest.skip(str(error))
    rows = 10 if config.agent_name == "r2d2" else 2  # of a batch
    small = tiny(name)
    assert result.finished
    a_round = small["actor"]["envs_per_worker"] * 5
    assert 100 <= result.agent_steps < 100 + a_round, "to the end of a round; final observations are no steps"
    if isinstance(config.agent, QConfig):
        assert 60 // rows <= result.updates <= 100 // rows
    elif fresh := fresh_of(config, small["learner"]["batch_size"]):
        assert 100 <= result.updates * fresh * 5 <= 120, "the rest of each batch is replayed"
    else:
        assert result.updates > 0


REFERENCE = {
    "apex-paper": {
        "agent": {"n_step": 3, "discount": 0.99, "target_period": 2500, "loss": "square", "head_size": 512},
        "learner": {"batch_size": 512, "learning_rate": 6.25e-5, "epsilon": 1.5e-7, "clip_norm": 40.0},
        "sampler": {"alpha": 0.6, "beta": 0.4, "final_beta": 0.4, "min_rows": 50_000},
        "env": {"reward_clip": "clamp", "full_action_space": True, "max_frames": 50_000, "sticky": 0.0},
        "eval_env": {"max_frames": 108_000, "life_loss": "ignore"},
        "actor": {"workers": 360, "envs_per_worker": 1},
        "replay": {"capacity": 2_000_000},
    },
    "apex-rela": {
        "agent": {"n_step": 3, "discount": 0.997, "target_period": 2500, "loss": "huber", "head_size": 0},
        "learner": {"batch_size": 512, "learning_rate": 6.25e-5, "epsilon": 1.5e-7, "publish_every": 20},
        "sampler": {"alpha": 0.6, "beta": 0.4, "final_beta": 0.4, "min_rows": 80_000},
        "env": {"reward_clip": "sign", "life_loss": "end_episode", "max_frames": 108_000},
        "actor": {"workers": 60, "envs_per_worker": 40},
        "replay": {"capacity": 2_000_000},
    },
    "r2d2-paper": {
        "agent": {
            "n_step": 5, "discount": 0.997, "target_period": 2500, "length": 80, "burn_in": 40, "period": 40,
            "state": "stored", "rescale": 1e-3, "eta": 0.9, "core_size": 512, "head_size": 512, "last_action": True,
            "last_reward": True,
        },
        "learner": {"batch_size": 64, "optimizer": "adam", "learning_rate": 1e-4, "epsilon": 1e-3, "clip_norm": 40.0},
        "sampler": {"alpha": 0.9, "beta": 0.6, "final_beta": 0.6},
        "env": {"reward_clip": "none", "life_loss": "ignore", "full_action_space": True, "max_frames": 108_000},
        "actor": {"workers": 256, "envs_per_worker": 1},
        "replay": {"capacity": 4_000_000},
    },
    "r2d2-rela": {
        "agent": {
            "n_step": 3, "discount": 0.997, "target_period": 2500, "length": 80, "burn_in": 40, "period": 80,
            "state": "stored", "rescale": -1.0, "eta": 0.9, "core_size": 512, "head_size": 0, "last_action": False,
            "last_reward": False, "loss": "huber", "loss_rows": "sum",
        },
        "learner": {"batch_size": 64, "optimizer": "adam", "learning_rate": 1e-4, "epsilon": 1e-3, "publish_every": 10},
        "sampler": {"alpha": 0.9, "beta": 0.6, "final_beta": 0.6, "min_rows": 4_000 * 80},
        "env": {"reward_clip": "sign", "life_loss": "end_episode", "max_frames": 108_000},
        "actor": {"workers": 60, "envs_per_worker": 40},
        "replay": {"capacity": 50_000 * 80},
    },
}  # fmt: skip
"""The tables of the papers and of the seed implementation."""


@pytest.mark.parametrize("name", list(REFERENCE))
def test_presets_that_stand_for_something_have_its_numbers(name: str) -> None:
    config = load_preset(name)
    for section, values in REFERENCE[name].items():
        held = config.replay.samplers[0] if section == "sampler" else getattr(config, section)
        assert {key: getattr(held, key) for key in values} == values, section
    assert config.replay.samplers[0].initial_priority == "actor"


SEED_FLAGS = [
    "save_dir", "multi_step", "algo", "seq_burn_in", "seq_len", "eta", "same_hid", "game", "one_life", "seed",
    "max_frame", "gamma", "lr", "eps", "grad_clip", "batchsize", "num_epoch", "epoch_len",
    "num_update_between_sync", "train_device", "burn_in_frames", "replay_buffer_size", "prefetch",
    "priority_exponent", "importance_exponent", "num_thread", "num_game_per_thread", "act_base_eps",
    "act_eps_alpha", "act_device", "actor_sync_freq", "num_eval_game", "record_time",
]  # fmt: skip
"""Flags of the seed implementation (facebookresearch/rela, pyrela/main.py)."""


R2AC_FLAGS = [
    "pipes_basename", "mode", "env", "multi_env", "xpid", "savedir", "disable_checkpoint", "seed", "valid_seed",
    "num_actors", "num_servers", "total_steps", "batch_size", "unroll_length", "num_learner_threads",
    "num_inference_threads", "max_learner_queue_size", "disable_cuda", "single_gpu", "num_actions", "allow_oov",
    "hidden_size", "use_lstm", "use_quasi_lstm", "use_rtrl", "conv_scale", "load_conv_net_from", "not_load_fc",
    "freeze_conv", "freeze_fc", "entropy_cost", "baseline_cost", "discounting", "reward_clipping", "learning_rate",
    "alpha", "momentum", "epsilon", "grad_norm_clipping", "num_levels", "start_level", "distribution_mode",
    "validate_every", "validate_step_every", "disable_validation", "valid_num_episodes", "valid_num_runs",
    "valid_distribution_mode", "valid_num_levels", "valid_start_level", "test_num_levels", "save_extra_checkpoint",
    "eval_extra", "use_wandb", "project_name", "job_name", "write_profiler_trace",
]  # fmt: skip
"""Flags of the seed implementation of R2AC (IDSIA/rtrl-elstm and torchbeast, polybeast_learner.py and
polybeast_env.py)."""
PLATFORM_FLAGS = [
    "op_mode", "load_model_url", "load_optimizer_save", "save_model_period", "debug", "lr", "batch_size", "r_f_steps",
    "gradient_clip_by_norm_threshold", "gamma", "seed", "reproducible", "environment_max_steps", "env", "clip_rewards",
    "reward_clipping_method", "skipped_frames", "frames_stacked", "noop_threshold", "grayscaling_frames",
    "episodic_life", "frame_scale_resolution", "actions_count", "observation_shape", "learner_thread_count",
    "worker_count", "envs_per_worker", "multiprocessing_backend", "shared_queue_size", "replay_writer_queue_size",
    "discarding_strategy", "use_replay_compression", "lz4_compression_level", "caching", "caching_threads",
    "cache_sample_size", "cache_output_buffer_size", "training_fill_in_factor", "replay_parameters", "avg_buff_size",
    "verbose_worker_out_int", "verbose_learner_out_int", "basic_verbose", "worker_verbose", "background_save",
    "test_episode_count", "render", "feature_out_layer_size", "use_additional_scaling_FC_layer", "optimizer",
    "rmsprop_eps", "lr_scheduler_steps", "lr_end_value", "policy_gradient_loss_weight", "value_loss_weight",
    "entropy_loss_weight", "c-const", "rho-const", "use_policy_cloning_loss", "use_value_cloning_loss",
    "policy_cloning_loss_weight", "value_cloning_loss_weight", "use_kl_mask", "kl_div_threshold",
]  # fmt: skip
"""Flags of the V-trace platform (parralplex/elite_buffer_vtrace, option_flags.py)."""
PLATFORM_REPLAY = [
    "type", "capacity", "sample_ratio", "dist_function", "p", "insert_strategy", "sample_strategy",
    "lambda_batch_multiplier", "alfa_annealing_factor", "elite_sampling_strategy", "elite_batch_size",
]  # fmt: skip
"""Keys of one table of its --replay_parameters."""
REALTIME_FLAGS = [
    "model", "arch", "k", "lr", "gamma", "seed", "opt", "cuda", "explore", "target_freq", "reservoir", "n", "fps",
    "level", "pretrain_steps", "delay", "noops", "num_actions", "default_action", "obs_history", "memory", "batch_size",
    "updates", "game", "mode", "num_inf", "num_learn", "eps_init", "eps_end", "total_timesteps", "setting",
    "t_theta_max", "random_not_noop", "aps", "init_step", "max_update_freq", "passes", "cluster",
]  # fmt: skip
"""Flags of the three scripts of realtime learning (CERC-AAI/realtime_rl: simulate_delay_tetris.py,
simulate_delay_atari.py, run_realtime_pokemon.py)."""
VALUES = {
    "apex",
    "r2d2",
    "terminal",
    "end_episode",
    "lstm",
    "elstm-tbptt",
    "elstm-rtrl",
    "clamp",
    "none",
    "multi_env",
    "wandb",
    "ignore",
    "sign",
    "soft_asymmetric",
    "fifo",
    "uniform",
    "elite",
    "attentive",
    "elite_insertion",
    "cosine",
    "kl",
    "with-optimiser",
    "from",
}


@pytest.mark.parametrize(
    ("heading", "flags"),
    [
        ("The seed implementation of Ape-X and R2D2", SEED_FLAGS),
        ("The seed implementation of R2AC", R2AC_FLAGS),
        ("The seed implementation of the V-trace platform", PLATFORM_FLAGS),
        ("The seed implementation of realtime learning", REALTIME_FLAGS),
    ],
)
def test_every_flag_of_a_seed_implementation_has_its_option_or_a_reason(heading: str, flags: list[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")
    part = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `--([\w-]+)` \| [^|]+ \| ([^|]+) \|$", part, re.M))
    assert sorted(rows) == sorted(flags)
    if flags is PLATFORM_FLAGS:
        keys = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", part, re.M))
        assert sorted(keys) == sorted(PLATFORM_REPLAY)
        rows |= keys
    known = {option.name for option in all_options()} | set(SHORT) | VALUES
    for flag, answer in rows.items():
        named = {name.removeprefix("--") for name in re.findall(r"`([^`]+)`", answer)}
        assert named <= known or answer.startswith("none: "), f"{flag}: {named - known}"
        assert named or answer.startswith("none: "), flag
