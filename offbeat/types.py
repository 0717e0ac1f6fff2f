"""Plain data that every part of offbeat agrees on: specs, rows as environments give them, and batches as losses read
them.

Letters in shapes: ``T`` time, ``B`` batch, ``A`` actions, ``N`` environments. Batches are time-major.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

OBSERVATION = "observation"
"""The key of an observation that is one array; dictionary observations keep their own keys."""
LEGAL = "legal_actions"
"""The key of the mask [A] bool of actions that may be taken, in environments that have one."""

ArrayDict = dict[str, np.ndarray]
TensorDict = dict[str, Tensor]
Value = TypeVar("Value")
CoreState = dict[str, Tensor]
"""Recurrent state: name -> [B, ...]; an empty dict for feed-forward networks."""


def under(named: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    """The items whose names begin with ``prefix``, without it: a part of a saved state, or of shared memory."""
    return {name[len(prefix) :]: value for name, value in named.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class ArraySpec:
    """Shape, dtype (a NumPy name such as ``"uint8"``) and bounds of one array without its batch axes."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float | None = None
    high: float | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of one element of this spec."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def zeros(self, *lead: int) -> np.ndarray:
        """A zero array of shape ``[*lead, *shape]``."""
        return np.zeros((*lead, *self.shape), self.dtype)


@dataclass(frozen=True)
class ActionSpec:
    """What an environment accepts: one of ``num_actions`` choices, several choices at once (``nvec``: among how many
    each), or a box of floats with bounds.
    """

    kind: Literal["discrete", "multi_discrete", "continuous"]
    num_actions: int = 0
    shape: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    nvec: tuple[int, ...] = ()

    @property
    def choices(self) -> tuple[int, ...]:
        """Among how many each component chooses; empty for continuous actions."""
        return (self.num_actions,) if self.kind == "discrete" else self.nvec

    @property
    def array(self) -> ArraySpec:
        """The spec of one stored action: int64 scalar, int64 [components], or float32 ``[*shape]``."""
        if self.kind == "multi_discrete":
            return ArraySpec((len(self.nvec),), "int64")
        return ArraySpec((), "int64") if self.kind == "discrete" else ArraySpec(self.shape, "float32")


@dataclass(frozen=True)
class EnvSpec:
    """What an environment gives and takes. ``observation`` describes *single* frames.

    Keys in ``stacked`` are shown to networks as the newest ``frame_stack`` frames joined along axis 0, oldest first
    (a frame [1, 84, 84] with ``frame_stack=4`` becomes [4, 84, 84]). Frames before an episode's first one are zeros
    (``stack_padding="zero"``) or copies of the first (``"repeat"``).

    In games of several ``players`` each player is an environment: environments ``players * g`` and those after it
    play game g. A game is one episode for all of them: their rows start and end together.
    """

    id: str
    observation: dict[str, ArraySpec]
    action: ActionSpec
    frame_stack: int = 1
    stacked: tuple[str, ...] = ()
    stack_padding: Literal["zero", "repeat"] = "zero"
    frame_skip: int = 1
    max_episode_steps: int | None = None
    random_score: float | None = None
    reference_score: float | None = None
    players: int = 1
    privileged: tuple[str, ...] = ()
    """Keys of observations that rows hold for learning, and that a policy must not read."""

    def __post_init__(self) -> None:
        """Raise ValueError for a mask of actions that does not fit the actions, and for a game without players."""
        mask = self.observation.get(LEGAL)
        if mask is not None and self.action.choices and mask.shape != (sum(self.action.choices),):
            raise ValueError(
                f"{self.id}: observation {LEGAL!r} has shape {list(mask.shape)}, but as the mask of actions it must be "
                f"[{sum(self.action.choices)}]; anything else needs another key"
            )
        if self.players < 1:
            raise ValueError(f"{self.id}: players={self.players} is out of range; allowed: 1 or above")

    @property
    def features(self) -> dict[str, ArraySpec]:
        """What networks make features of: ``network_observation`` without the mask of discrete actions, and without
        what is privileged.
        """
        hidden = {*self.privileged, *((LEGAL,) if self.action.choices else ())}
        return {key: spec for key, spec in self.network_observation.items() if key not in hidden}

    @property
    def network_observation(self) -> dict[str, ArraySpec]:
        """Specs as networks see them, frame stacks included."""
        seen = {}
        for key, spec in self.observation.items():
            deep = self.frame_stack if key in self.stacked else 1
            shape = (spec.shape[0] * deep, *spec.shape[1:]) if spec.shape else spec.shape
            seen[key] = replace(spec, shape=shape)
        return seen


@dataclass
class EnvStep:
    """One new row for each of ``n`` environments: what their last actions led to, and the observation now.

    After an episode's end the environment gives one row with ``valid=False`` that carries the final observation; the
    action sent for it is ignored, and the row after it has ``first=True``. So every row takes exactly one action.
    A row that is ``first`` and not ``valid`` belongs to no episode: an environment that needs a step more to start anew
    gives it in between.
    """

    env_ids: np.ndarray  # [n] int64, which environments these rows belong to
    observation: ArrayDict  # key -> [n, ...] single frames
    reward: np.ndarray  # [n] float32, of the previous action, transformed as configured (clipping)
    raw_reward: np.ndarray  # [n] float32, of the previous action, as the game gives it: for scores
    terminated: np.ndarray  # [n] bool: the previous action ended the episode (or cost a life, where that is asked for)
    truncated: np.ndarray  # [n] bool: the previous action reached a time limit
    first: np.ndarray  # [n] bool: this row starts an episode
    valid: np.ndarray  # [n] bool: False where this row only carries a final observation
    elapsed: np.ndarray | None = None
    """[n] int32, environment steps that the previous action took; of ``first`` rows those before the episode's first
    action, whose rewards are in ``raw_reward`` (none unless actions are late). None: 1, and 0 where ``first``."""


@dataclass
class Inputs:
    """What a network reads: time-major, frame stacks rebuilt.

    ``last_action`` and ``last_reward`` are those that led to this observation, zeros where ``first``; None unless the
    agent asks for them.
    """

    observation: TensorDict  # key -> [T, B, ...]
    first: Tensor  # [T, B] bool
    last_action: Tensor | None = None  # [T, B, ...]
    last_reward: Tensor | None = None  # [T, B] float32
    epsilon: Tensor | None = None  # [T, B] float32, share of random actions; only while acting

    @property
    def shape(self) -> tuple[int, int]:
        """(T, B)."""
        return int(self.first.shape[0]), int(self.first.shape[1])


@dataclass
class Unroll:
    """T consecutive rows of B streams, with the observation that follows: index t of every field is the same row.

    ``action[t]`` was taken at ``observation[t]``; ``reward[t]`` and ``discount[t]`` came from that action. Row T
    holds an observation only (the bootstrap). Rows with ``valid[t] = False`` carry an episode's final observation:
    they are no transitions, and the row after them starts an episode.
    """

    inputs: Inputs  # T + 1 rows
    valid: Tensor  # [T + 1, B] bool
    action: Tensor  # [T, B, ...]
    reward: Tensor  # [T, B] float32
    discount: Tensor  # [T, B] float32, gamma^k (1 - terminated); 0 where not valid
    terminated: Tensor  # [T, B] bool
    truncated: Tensor  # [T, B] bool
    extras: TensorDict  # name -> [T, B, ...], the behaviour extras that the agent declares
    core_state: CoreState  # name -> [B, ...], the state before row 0
    param_version: Tensor  # [T, B] int64
    stream: Tensor  # [B] int64
    row: Tensor  # [B] int64, absolute index of row 0
    source: Tensor  # [B] int64, index of the sampler in the mixture that chose this column
    weight: Tensor | None = None  # [B] float32, importance weights where items are drawn by priority
    replayed: Tensor | None = None  # [B] bool, columns that may have been trained on before; None: not said
    fresh: tuple[int, int] = (0, 0)  # transitions that a fifo handed out here, and the environment steps they took
    elapsed: Tensor | None = None  # [T, B] int32, environment steps that each action took; None: 1
    before: Unroll | None = None
    """The ``burn_in`` rows before row 0, where the agent asks for them (``ItemSpec``): they only bring something up to
    date. Rows before the stream's first one repeat that, and start an episode. A column of which nothing is known any
    more has no valid row."""

    @property
    def rows(self) -> int:
        """Transitions that are trained on."""
        return int(self.valid[:-1].sum())

    @property
    def env_steps(self) -> int:
        """Environment steps that those took."""
        return self.rows if self.elapsed is None else int(self.elapsed[self.valid[:-1]].sum())

    def to(self, device: torch.device | str) -> Unroll:
        """The same unroll on ``device`` (copies are asynchronous from pinned memory)."""
        return move(self, torch.device(device))


@dataclass
class Transition:
    """B n-step transitions. ``reward`` is the discounted sum, ``discount`` the product over the steps taken (0 if
    terminated).
    """

    inputs: Inputs  # [1, B, ...]
    action: Tensor  # [B, ...]
    reward: Tensor  # [B] float32
    discount: Tensor  # [B] float32
    next_inputs: Inputs  # [1, B, ...]
    steps: Tensor  # [B] int64, n or fewer at an episode's end
    extras: TensorDict  # of the first row
    param_version: Tensor  # [B] int64
    stream: Tensor
    row: Tensor
    source: Tensor
    weight: Tensor | None = None  # [B] float32, importance weights where items are drawn by priority
    replayed: Tensor | None = None  # [B] bool, columns that may have been trained on before; None: not said
    elapsed: Tensor | None = None  # [B] int32, environment steps that the first row's action took; None: 1

    @property
    def rows(self) -> int:
        """Rows that are trained on."""
        return self.reward.numel()

    @property
    def env_steps(self) -> int:
        """Environment steps that their actions took."""
        return self.rows if self.elapsed is None else int(self.elapsed.sum())

    def to(self, device: torch.device | str) -> Transition:
        """The same transitions on ``device``."""
        return move(self, torch.device(device))


@dataclass
class Sequence(Unroll):
    """An unroll whose rows are burn-in, then training rows, then an n-step tail; rows past the episode's end are
    masked.

    ``mask[t]`` is True for rows that are trained on. Rows after the end of the episode repeat its final observation,
    rows before its start (where burn-in is short of history) its first one.
    """

    mask: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))  # [T, B] bool
    burn_in: int = 0

    @property
    def rows(self) -> int:
        """Rows that are trained on."""
        return int(self.mask.sum())

    @property
    def env_steps(self) -> int:
        """Environment steps that those took."""
        return self.rows if self.elapsed is None else int(self.elapsed[self.mask].sum())


Batch = Unroll | Transition
"""What a learner trains on; a ``Sequence`` is an ``Unroll`` too."""


@dataclass(frozen=True)
class ItemSpec:
    """What an agent trains on. ``unroll``: ``learner.unroll_length`` consecutive rows of a stream. ``transition``: n
    steps from one row. ``sequence``: burn-in, then ``length`` rows to train on, then n more.

    Sequences begin to train at every ``period``-th row of an episode, from its first row on; where there is less
    history than ``burn_in`` the missing rows are padding. They never cross an episode's end.
    """

    kind: Literal["unroll", "transition", "sequence"] = "transition"
    n: int = 1
    """Steps of the returns, >= 1. Not of unrolls."""
    length: int = 1
    """Rows that are trained on, >= 1; of unrolls ``learner.unroll_length``, whatever it says here."""
    burn_in: int = 0
    """Rows before them that only bring the recurrent state up to date; of unrolls ``Unroll.before``, a multiple of
    ``learner.unroll_length``."""
    period: int = 1
    """Rows from one sequence's first trained row to the next one's."""
    eta: float = 0.9
    """Share of the largest TD error in a sequence's priority; the rest is their mean."""
    rescale: float = -1.0
    """Epsilon of value rescaling in the TD errors of initial priorities; negative: values are not rescaled."""
    consecutive: bool = False
    """Each stream's unrolls must come one after the other, each once: what the learner carries from one to the next
    fits no others. What is replayed beside them may be any."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        if self.kind not in ("unroll", "transition", "sequence"):
            raise ValueError(f"kind={self.kind!r} is not allowed; choose one of: unroll, transition, sequence")
        for name in ("n", "length", "period"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 1 or above")
        if self.burn_in < 0:
            raise ValueError(f"burn_in={self.burn_in} is out of range; allowed: 0 or above")
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta={self.eta} is out of range; allowed: 0 to 1")

    @property
    def span(self) -> int:
        """Rows after an item's first trained row that must be there before it is complete."""
        if self.kind == "unroll":
            return self.length - 1
        return self.n if self.kind == "transition" else self.length + self.n

    @property
    def reach(self) -> int:
        """Rows of one stream among which there is always a complete item with its burn-in.

        Between two rows that start one lie at most ``period`` others: those of the period and a final observation.
        """
        return self.burn_in + self.period + 1 + self.span

    @property
    def trained(self) -> int:
        """Rows of one item that are trained on."""
        return 1 if self.kind == "transition" else self.length

    @property
    def state_period(self) -> int:
        """How often the recurrent state must be kept so that every burn-in starts at one; 0: never."""
        return math.gcd(self.burn_in, self.period) if self.kind == "sequence" else 0


UNROLL = ItemSpec("unroll")
"""What on-policy agents train on."""


@dataclass
class ActOutput:
    """What ``Agent.act`` returns for B environments: actions, extras for the row, and the next recurrent state."""

    action: Tensor  # [B, ...]
    extras: TensorDict  # name -> [B, ...], as the agent declares them
    state: CoreState  # name -> [B, ...]


@dataclass
class LossOutput:
    """What ``Agent.loss`` returns: a sum to minimise, detached scalars to log, and what samplers are told.

    Sums and counts of several shards of a batch add up to those of the whole: the learner divides once.
    """

    total: Tensor  # [] with gradients, summed over the batch
    metrics: TensorDict  # name -> [] detached; never read on the training thread
    feedback: TensorDict = field(default_factory=dict)  # name -> [B] detached, e.g. "priority": for the samplers
    count: Tensor | float | None = None  # what ``total`` is divided by, above 0; None: a plain sum, never divided

    @property
    def loss(self) -> Tensor:
        """What is minimised: ``total`` / ``count``, or ``total`` itself."""
        return self.total if self.count is None else self.total / self.count


def move(value, device: torch.device):  # type: ignore[no-untyped-def]
    """A copy of a dataclass, dict or tensor with every tensor on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: move(item, device) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return replace(value, **{f.name: move(getattr(value, f.name), device) for f in fields(value)})
    return value
