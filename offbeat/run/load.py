"""A trained agent out of its run folder: for evaluations, videos and programs of the user (``offbeat.load``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from offbeat.acting.episodes import Player, network_device
from offbeat.agents.base import Agent
from offbeat.errors import UserError
from offbeat.types import LEGAL, OBSERVATION, EnvStep

if TYPE_CHECKING:
    from offbeat.config.run_config import RunConfig
    from offbeat.envs.spaces import Translator


@dataclass
class Restored:
    """A run's configuration and its agent with the weights of one checkpoint."""

    config: RunConfig
    agent: Agent
    meta: dict[str, Any]
    """Meta data of the checkpoint."""

    @property
    def agent_steps(self) -> int:
        """Agent steps that the weights were trained for."""
        return restored_steps(self.meta)

    @property
    def version(self) -> int:
        """Learner updates of the weights."""
        return int(_counter(self.meta, "updates"))


def restore(run: Path, *, checkpoint: Path | str | None = None, **own: Any) -> Restored:
    """Make a run's agent and load its newest weights, or those of ``checkpoint``: a folder, or a name as ``load_agent``
    takes it. ``own``: ``env_factory``, ``agent_factory`` or ``torso`` of the user's, if it had one.

    UserError if ``run`` is no run folder or has no checkpoint.
    """
    config = run_config(run)
    agent, meta = load_agent(run, config, checkpoint=checkpoint, **own)
    return Restored(config, agent, meta)


def load_agent(
    run: Path,
    config: RunConfig,
    *,
    checkpoint: Path | str | None = None,
    device: str | None = None,
    **own: Any,
) -> tuple[Agent, dict[str, Any]]:
    """The run's agent with its newest weights (or those of ``checkpoint``), and the checkpoint's meta data.

    ``checkpoint``: its folder; or as text what it is called in this run: ``best``, ``extra`` or its agent steps.
    ``device``: where to put it; default: the run's device if this machine has it, else the CPU. ``own``:
    the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.
    """
    from offbeat.agents.make import make_agent
    from offbeat.envs.registry import env_spec
    from offbeat.run.own import check_given
    from offbeat.storage.checkpoint import CheckpointError, load_weights
    from offbeat.storage.named import chosen

    source = chosen(run, checkpoint) if isinstance(checkpoint, str) else checkpoint or run
    try:
        weights, meta = load_weights(source)
    except CheckpointError as error:
        raise UserError(f"{error}; go on with the run until it saves one, or pick another run") from error
    check_given(meta, own, run)
    spec = env_spec(config.eval_env, own.get("env_factory"))
    place = device or _device(config.device)
    agent = make_agent(config.agent_name, config.agent, spec, place, own.get("torso"), own.get("agent_factory"))
    try:
        agent.network.load_state_dict(weights)
    except RuntimeError:
        from offbeat.run.resumable import check_weights
        from offbeat.storage.checkpoint import find

        check_weights(find(source, only=("learner",)), agent.network, config)  # says which option it is
        raise
    agent.network.eval()
    return agent, meta


class LoadedAgent:
    """A trained agent for use in a program: give it observations, get actions. It remembers what the agent remembers.

    It speaks as the environment does: observations are what ``reset`` and ``step`` of a Gymnasium environment give,
    actions are members of its action space. Of other environments (Atari, toys, a ``VectorEnv``) they are single frames
    as ``spec.observation`` says, with the mask of legal actions where there is one. Frame stacks, recurrent state and
    last actions are kept inside. Call ``reset()`` when an episode starts.
    """

    def __init__(
        self, agent: Agent, *, greedy: bool = True, seed: int = 0, translator: Translator | None = None
    ) -> None:
        """``greedy``: the most probable action, else drawn with ``seed``. ``translator``: of the spaces."""
        self.agent, self.spec, self._greedy, self._seed = agent, agent.spec, greedy, seed
        self._translator = translator
        self._generator: torch.Generator | None = None
        self._player: Player | None = None
        self._count = 0
        self._first = np.ones(0, bool)
        agent.network.eval()

    def act(self, observation: Any, reward: float | np.ndarray = 0.0, action_mask: Any = None) -> Any:
        """The action for one observation, or actions [n, ...] for a batch of n; n must stay the same until ``reset()``.

        Args:
            observation: as the environment gives it, or a batch: the same with every array one axis longer.
            reward: that the last action earned, as the agent was trained on it; only agents that read it need it.
            action_mask: which actions may be taken, [A] or [n, A]; needed where ``info`` says so in training.
        """
        translator = self._translator
        arrays, batched = self._checked(observation) if translator is None else translator.observation(observation)
        count = len(next(iter(arrays.values())))
        if LEGAL in self.spec.observation and LEGAL not in arrays:
            if action_mask is None:
                raise ValueError(
                    f"{self.spec.id} says in info which actions may be taken: call act(observation, "
                    "action_mask=info['action_mask']); ones allow all"
                )
            shape = (count, *self.spec.observation[LEGAL].shape)
            arrays[LEGAL] = np.broadcast_to(np.asarray(action_mask, bool), shape).copy()
        if self._player is None or count != self._count:
            if self._player is not None and not self._first.all():
                raise ValueError(f"observation is a batch of {count}, before it was {self._count}; call reset() first")
            self._open(count)
        assert self._player is not None
        off = np.zeros(count, bool)
        rewards = np.broadcast_to(np.asarray(reward, np.float32), (count,))
        step = EnvStep(np.arange(count), arrays, rewards, rewards, off, off, self._first.copy(), ~off)
        action = self._player.act(step)
        self._first[:] = False
        if translator is not None:
            return translator.action(action, batched)
        if batched:
            return action
        return int(action[0]) if self.spec.action.kind == "discrete" else action[0]

    def reset(self, which: np.ndarray | None = None) -> None:
        """Start new episodes: everywhere, or where ``which`` [n] bool is True."""
        if which is None:
            self._first[:] = True
        elif self._player is not None:
            self._first |= np.asarray(which, bool)

    def _open(self, count: int) -> None:
        if self._generator is None:
            self._generator = torch.Generator(network_device(self.agent)).manual_seed(self._seed)
        self._player = Player(self.agent, count, greedy=self._greedy, generator=self._generator)
        self._count, self._first = count, np.ones(count, bool)

    def _checked(self, observation: np.ndarray | Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], bool]:
        """The observation as name -> [n, ...] of the spec's dtypes, and whether it had a batch axis."""
        given = dict(observation) if isinstance(observation, Mapping) else {OBSERVATION: np.asarray(observation)}
        if given.keys() != self.spec.observation.keys():
            raise ValueError(f"observation has {sorted(given)}, {self.spec.id} has {sorted(self.spec.observation)}")
        arrays, batched = {}, set()
        for key, spec in self.spec.observation.items():
            array = np.require(given[key], spec.dtype, ["C", "W"])
            if array.shape != spec.shape and array.shape[1:] != spec.shape:
                raise ValueError(f"{key} has shape {list(array.shape)}; expected {list(spec.shape)} or a batch of it")
            batched.add(array.shape != spec.shape)
            arrays[key] = array if array.shape != spec.shape else array[None]
        if len(batched) != 1 or len({len(array) for array in arrays.values()}) != 1:
            raise ValueError("observation mixes batch sizes: " + str({k: list(v.shape) for k, v in given.items()}))
        return arrays, batched.pop()


def load(
    run: str | Path,
    *,
    greedy: bool = True,
    seed: int = 0,
    device: str = "cpu",
    checkpoint: Path | str | None = None,
    **own: Any,
) -> LoadedAgent:
    """The agent of a run with its newest weights: ``offbeat.load(run).act(observation)``.

    Args:
        run: run folder, or a folder of runs (the newest is taken).
        greedy: the most probable action, else one drawn with ``seed``.
        checkpoint: other weights than the newest, see ``load_agent``.
        own: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.
    """
    from offbeat.envs.registry import translator
    from offbeat.run.folders import find_run

    folder = find_run(run)
    config = run_config(folder)
    agent, _ = load_agent(folder, config, checkpoint=checkpoint, device=device, **own)
    return LoadedAgent(agent, greedy=greedy, seed=seed, translator=translator(config.eval_env, own.get("env_factory")))


def run_config(run: Path) -> RunConfig:
    """The configuration in a run folder. Raises ``UserError``."""
    from offbeat.config.run_config import read_config
    from offbeat.run.folders import CONFIG

    if not (Path(run) / CONFIG).is_file():
        raise UserError(f"{str(run)!r} is no run folder: it holds no {CONFIG}")
    return read_config(Path(run) / CONFIG)


def _device(wanted: str) -> str:
    """``wanted`` if this machine has it, else the CPU."""
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind, _, index = wanted.partition(":")
    if kind not in ("auto", "cuda"):
        return wanted
    return ("cuda" if kind == "auto" else wanted) if here > int(index or 0) else "cpu"


def restored_steps(meta: dict[str, Any]) -> int:
    """Agent steps that the weights of a checkpoint with this meta data were trained for."""
    return int(_counter(meta, "agent_steps"))


def _counter(meta: dict[str, Any], name: str) -> float:
    """A counter of a checkpoint's meta data, 0 where it has none."""
    return meta.get(name, meta.get("counters", {}).get(name, 0))  # type: ignore[no-any-return]
