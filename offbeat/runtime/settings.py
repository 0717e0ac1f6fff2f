"""What the runtime reads of a run's configuration. ``offbeat.config`` stands above it and makes the real one."""

from __future__ import annotations

from typing import Any, Protocol

from offbeat.acting.final_sets import FinalConfig
from offbeat.envs.base import EnvConfig
from offbeat.replay.demonstrated import DemonstrationsConfig
from offbeat.replay.mixture import ReplayConfig
from offbeat.runtime.actor import ActorConfig
from offbeat.runtime.evaluator import EvaluationConfig
from offbeat.runtime.inference import InferenceConfig
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.spans import TraceConfig
from offbeat.runtime.validations import ValidationConfig
from offbeat.storage.checkpoint import CheckpointConfig


class Settings(Protocol):
    """The options of the run itself, and a section for each role; ``RunConfig`` says what each one means."""

    @property
    def engine(self) -> str:
        """What hosts the roles."""

    @property
    def deterministic(self) -> bool:
        """Whether the schedule of the roles is fixed."""

    @property
    def device(self) -> str:
        """Torch device of roles that name none of their own."""

    @property
    def seed(self) -> int:
        """Seed of every random number generator of the run."""

    @property
    def total_frames(self) -> int:
        """Length of the run. Unit: environment frames."""

    @property
    def agent_name(self) -> str:
        """Which agent."""

    @property
    def agent(self) -> Any:
        """The agent's own options."""

    @property
    def env(self) -> EnvConfig:
        """Environments that are trained on."""

    @property
    def eval_env(self) -> EnvConfig:
        """Environments that evaluations are played in."""

    @property
    def valid_env(self) -> EnvConfig:
        """Environments that validations are played in."""

    @property
    def final_env(self) -> EnvConfig:
        """Environments of the sets that the run ends with."""

    @property
    def actor(self) -> ActorConfig:
        """How experience is gathered."""

    @property
    def inference(self) -> InferenceConfig:
        """The inference server."""

    @property
    def learner(self) -> LearnerConfig:
        """Batches and optimiser."""

    @property
    def replay(self) -> ReplayConfig:
        """What is kept and how batches are drawn."""

    @property
    def demonstrations(self) -> DemonstrationsConfig:
        """What is learnt from rows that somebody else has played."""

    @property
    def evaluation(self) -> EvaluationConfig:
        """When and how the agent is scored."""

    @property
    def validation(self) -> ValidationConfig:
        """When the agent is scored on what it was not trained on."""

    @property
    def final(self) -> FinalConfig:
        """Sets of environments that the final weights are scored on."""

    @property
    def checkpoint(self) -> CheckpointConfig:
        """When the run is saved."""

    @property
    def realtime(self) -> RealtimeConfig:
        """An environment that never waits."""

    @property
    def trace(self) -> TraceConfig:
        """When the time line of the roles is recorded."""
