"""Names of devices: each GPU by its number, several servers, and networks that are made on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from offbeat.config.auto import choose_device, computes_bf16, decide
from offbeat.config.run_config import load_preset, read_config
from offbeat.config.validation import check_device
from offbeat.errors import UserError
from offbeat.run.load import _device
from offbeat.runtime.generators import drawing_anew, generator_state
from tests.cuda.test_learner import CONFIGS, on_device, rounds
from tests.cuda.test_runs import counters, train
from tests.cuda.twins import make, make_batch, make_work, on

pytestmark = pytest.mark.cuda


def numbered(device: str) -> str:
    """A GPU by its number; the processor has none."""
    return f"{device}:0" if device == "cuda" else device


def test_auto_is_the_gpu_and_numbers_are_checked(device: str) -> None:
    config = load_preset("impala-atari-deep")
    if device == "cpu":
        assert _device("cuda:99") == "cpu"
        return
    count = torch.cuda.device_count()
    assert choose_device("auto") == "cuda" == _device("auto")
    chosen = decide(config)
    assert (chosen.device, chosen.learner.device, chosen.inference.device) == ("cuda", "cuda", ("cuda",))
    assert chosen.actor.inference == "server" and chosen.learner.threads == 1
    assert chosen.learner.precision == ("bf16" if computes_bf16("cuda") else "fp32")
    check_device("device", f"cuda:{count - 1}")
    with pytest.raises(UserError, match=f"only {count} GPUs"):
        check_device("device", f"cuda:{count}")
    assert _device(f"cuda:{count - 1}") == f"cuda:{count - 1}" and _device(f"cuda:{count}") == "cpu"


def test_a_numbered_device_trains_and_saves_its_own_generator(device: str, tmp_path: Path) -> None:
    run = rounds(tmp_path, on_device(CONFIGS["impala"], numbered(device)))
    assert str(run.learner.work.optimiser.flat.device) == numbered(device)
    saved = generator_state(run.learner.work.device)
    assert device == "cpu" or torch.equal(saved["cuda_generator"], torch.cuda.get_rng_state(0))


def test_two_servers_share_the_device(device: str, tmp_path: Path) -> None:
    place = numbered(device)
    options = ("--actor.inference", "server", "--actor.workers", "2", "--actor.envs_per_worker", "16")
    run = train(tmp_path, "impala-catch", place, *options, "--inference.device", f"{place},{place}")
    assert read_config(run / "config.toml").inference.device == (place, place)
    assert counters(run)["updates"] > 10


def test_a_network_that_is_made_on_the_device_comes_from_the_seed_and_disturbs_nobody(device: str) -> None:
    place = torch.device(numbered(device))
    expected = []
    for anew in (False, True, True):
        torch.manual_seed(7)
        drawn = [torch.rand(2), torch.rand(2, device=place)]
        if anew:
            with drawing_anew(11, place):
                expected.append(torch.rand(3, device=place))
        drawn += [torch.rand(2), torch.rand(2, device=place)]
        expected.append(torch.cat([numbers.cpu() for numbers in drawn]))
    alone, first, beside, second, again = expected
    assert torch.equal(first, second), "what is drawn there comes from its seed"
    assert torch.equal(alone, beside) and torch.equal(alone, again), "and what is drawn around it from another"


def test_a_second_gpu_trains_what_the_first_does(device: str) -> None:
    if device == "cpu" or torch.cuda.device_count() < 2:
        pytest.skip("there are no two GPUs")
    flats = []
    for place in ("cuda:0", "cuda:1"):
        agent = make("impala-lstm", place)
        work = make_work(agent)
        assert work.train_step(agent, make_batch(make("impala-lstm")).to(place)) is not None
        on(place, work.optimiser.flat)
        flats.append(work.optimiser.flat.cpu())
    torch.testing.assert_close(flats[0], flats[1], rtol=1e-5, atol=1e-6)
