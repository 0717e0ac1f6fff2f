"""The inference server: batches the requests of all actors into single forwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from offbeat.agents.base import Agent
from offbeat.networks.flat import flatten_parameters
from offbeat.runtime.clock import Clock
from offbeat.runtime.host import Host
from offbeat.runtime.ports import MetricSink, ParamReader, Requests, StopSignal
from offbeat.runtime.services import Services
from offbeat.types import move

IDLE_S = 0.5
"""Longest sleep without a request. Unit: seconds."""
REPORT_S = 1.0
"""The server reports about so often. Unit: seconds."""


@dataclass(frozen=True)
class InferenceConfig:
    """The inference server; unused with ``actor.inference = "actor"``."""

    device: tuple[str, ...] = ("auto",)
    """Torch devices: one server for each, workers dealt to them in turn; ``auto``: the run's device."""
    threads: int = 1
    """Torch threads of each server."""
    max_batch: int = 512
    """Most environments in one forward."""
    min_batch: int = 1
    """Wait for so many environments, but never longer than ``wait_s``."""
    wait_s: float = 0.002
    """Longest wait for ``min_batch``. Unit: seconds."""
    hang_timeout_s: float = 60.0
    """A server that shows no life for so long is reported with its stack, and the run ends. Unit: seconds."""


def run_inference(
    agent: Agent,
    requests: Requests,
    params: ParamReader,
    metrics: MetricSink,
    stop: StopSignal,
    clock: Clock,
    config: InferenceConfig,
    seed: int,
) -> Iterator[None]:
    """Answer requests for ever: take all that wait (up to ``max_batch`` environments), one forward, answer.

    Yields whenever all that waited is answered, and when nobody asks.
    """
    flat = flatten_parameters(agent.network)
    agent.network.eval()
    device, version = flat.device, -1
    generator = torch.Generator(device).manual_seed(seed)
    batches = rows = 0
    reported = clock.now()
    while not stop.is_set():
        if not requests.wait(config.min_batch, config.wait_s, IDLE_S):
            yield
            continue
        if params.version() != version:
            version = params.pull(flat).updates
        for asked in requests.take(config.max_batch):
            with torch.inference_mode():
                output = agent.act(move(asked.inputs, device), move(asked.state, device), generator)
                requests.answer(asked, output, version)
            batches, rows = batches + 1, rows + asked.rows
        now = clock.now()
        if now - reported >= REPORT_S:
            metrics.write("inference", {"batches": batches, "rows_per_batch": rows / batches, "version": version})
            batches, rows, reported = 0, 0, now
        yield


def build_inference(services: Services) -> InferenceServer:
    """A server from what its engine offers: one of several serves every so-many-th worker."""
    return InferenceServer(services)


class InferenceServer(Host):
    """An inference server."""

    def __init__(self, services: Services) -> None:
        config: InferenceConfig = services.config
        torch.set_num_threads(config.threads)
        self.agent = services.agent(services.device)
        self.requests = services.requests(self.agent.wants_last)
        loop = run_inference(
            self.agent,
            self.requests,
            services.weights(),
            services.metrics,
            services.stop(),
            services.clock,
            config,
            services.seeds(services.index)[1],
        )
        super().__init__(services, loop)
