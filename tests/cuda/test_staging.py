"""Batches reach the GPU through page-locked memory: whole, in order, and not overwritten on their way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.runtime.batches import StreamBatches, _pinned
from offbeat.runtime.shm import Bell, Wait
from offbeat.types import Batch, ItemSpec
from tests.cuda.twins import make, make_batch, on
from tests.replay.twin import Twin, vector_layout
from tests.runtime.test_batches import FIFO, LENGTH, MIXED, Streams

pytestmark = pytest.mark.cuda

CASES = ["impala-lstm", "dqn-images", "r2d2"]
SLEEP = 400_000_000
"""Clock cycles that a GPU is kept busy: some tenths of a second."""


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a batch, by name."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{name}/{key}")
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name), f"{name}.{field.name}")


def same(one: Batch, other: Batch) -> None:
    """Both hold the same numbers, dtypes and, where they are dense, the same order in memory."""
    ours, theirs = dict(tensors(one)), dict(tensors(other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(value.cpu().numpy(), theirs[name].cpu().numpy(), err_msg=name)
    assert type(one) is type(other) and one.rows == other.rows


@pytest.fixture
def pins(device: str, monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Without a GPU there is no memory to lock: copies stand in for it. Shapes of what was locked, or copied."""
    locked: list[torch.Size] = []  # not the memory itself, which is to be used again
    own = torch.Tensor.pin_memory

    def pin(tensor: Tensor) -> Tensor:
        locked.append(tensor.shape)
        return tensor.clone(memory_format=torch.preserve_format) if device == "cpu" else own(tensor)

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    return locked


@pytest.mark.parametrize("case", CASES)
def test_a_batch_in_locked_memory_and_on_the_device_is_the_same(case: str, device: str, pins: list[torch.Size]) -> None:
    batch = make_batch(make(case))
    staged = _pinned(batch)
    assert len(pins) == len(dict(tensors(batch)))
    assert device == "cpu" or all(tensor.is_pinned() for _, tensor in tensors(staged))
    same(staged, batch)
    moved = staged.to(device)
    on(device, *(tensor for _, tensor in tensors(moved)))
    same(moved, batch)


def test_images_keep_their_layout_on_the_way(device: str, pins: list[torch.Size]) -> None:
    """Readers write frame stacks with channels last, so that networks need not turn them."""
    batch = make_batch(make("dqn-images"))
    image = batch.inputs.observation["observation"]
    stacked = torch.empty_like(image.flatten(0, 1), memory_format=torch.channels_last).copy_(image.flatten(0, 1))
    batch.inputs.observation["observation"] = stacked.unflatten(0, image.shape[:2])
    moved = _pinned(batch).to(device)
    assert moved.inputs.observation["observation"].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    same(moved, batch)


def device_batches(streams: Streams, device: str, **options: Any) -> StreamBatches:
    """Batches of the mixture, on the device."""
    return StreamBatches(streams.mixture, streams.store, torch.device(device), **options)


def test_batches_on_their_way_are_not_overwritten(device: str, pins: list[torch.Size]) -> None:
    """The device is busy, so that all copies wait, while more batches are staged and the rings are written over."""
    streams, other = Streams(MIXED), Streams(MIXED)
    batches = device_batches(streams, device)
    for one in (streams, other):
        one.grow(3)
    got, expected = [], []
    for number in range(13):  # rings hold 60 rows of each stream, a round is 5
        if number == 2 and device != "cpu":  # locked memory that was used before is there to be used again
            torch.cuda.synchronize()
            torch.cuda._sleep(SLEEP)
        batch, wanted = batches.next(0.0), other.mixture.sample()
        assert batch is not None and wanted is not None
        for one in (streams, other):
            one.mixture.done(wanted)  # not of the batch itself: that would wait for the device
            one.grow(1)
        got.append(batch)
        expected.append(wanted)
    assert device == "cpu" or pins
    for batch, wanted in zip(got, expected, strict=True):
        on(device, *(tensor for _, tensor in tensors(batch)))
        same(batch, wanted)


def test_the_thread_that_works_ahead_gives_the_same_batches(device: str, pins: list[torch.Size]) -> None:
    streams, other = Streams(FIFO), Streams(FIFO)
    for one in (streams, other):
        one.grow(4)
    batches = device_batches(streams, device, wait=Wait(Bell(), lambda: False), writers=[Bell()], prefetch=2)
    weight = torch.ones(200, 200, device=device)
    try:
        for _ in range(4):
            batch, wanted = batches.next(30.0), other.mixture.sample()
            assert batch is not None and wanted is not None
            for _ in range(20):  # the training thread computes meanwhile
                weight = (weight @ weight).clamp(max=1.0)
            same(batch, wanted)
            batches.done(batch)
        assert batches.steps() == streams.counted(0, 4 * LENGTH)[0]
    finally:
        batches.close()


def prioritised() -> tuple[Mixture, StreamStore]:
    """A mixture of one prioritised sampler over random transitions."""
    items = ItemSpec("transition", n=2)
    layout = vector_layout(num_streams=2, capacity=60, num_cursors=0, state_grid=1, state_period=0, items=items)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    replay = ReplayConfig(capacity=60, samplers=(sampler_config("prioritised", min_rows=1),))
    mixture = make_mixture(store, replay, 8, False, 0)
    for _ in range(4):
        for stream in (0, 1):
            for _ in range(LENGTH):
                twin.step(stream)
        store.append(twin.block([0, 1], LENGTH))
    return mixture, store


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_priorities_on_the_device_reach_the_sampler(dtype: torch.dtype, device: str, pins: list[torch.Size]) -> None:
    saved = []
    for place in ("cpu", device):
        mixture, store = prioritised()
        batches = StreamBatches(mixture, store, torch.device(place))
        batch = batches.next(0.0)
        assert batch is not None
        on(place, batch.row, batch.stream)
        found = torch.linspace(0.25, 4.0, 8).to(place).to(dtype)
        batches.feedback(batch, {"priority": found})
        saved.append(mixture.state())
    assert saved[0].keys() == saved[1].keys()
    for name in saved[0]:
        np.testing.assert_array_equal(saved[0][name], saved[1][name], err_msg=name)
