"""The learner's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LearnerConfig:
    """Batches, optimiser and precision."""

    mode: Literal["sync", "async"] = "sync"
    """``async``: learners take turns to step, each with a gradient of its own batch taken at weights that may be a few
    updates old by then, and nobody waits for another's gradient. One such learner learns what one of ``sync`` does."""
    count: int = 1
    """Learners, each in a process of its own; more than one need the engine ``local``. With ``mode`` ``sync`` the first
    draws each batch, all take the gradient of a share of it, and step with the sum: what one learner of the whole batch
    would do. With ``async`` samplers must be such that each learner can have its own (``uniform``)."""
    max_restarts: int = 5
    """Replacements of learners in a run; one more ends it. The first learner, and those that step together, are rebuilt
    where a signal killed them (SIGKILL, a crash, the system for want of memory), as ``mirror_every`` says; asynchronous
    learners beside the first are replaced whatever they died of, or if they hang."""
    mirror_every: int = 100
    """Updates that are lost at most when the learner is killed: after so many it keeps weights, statistics and what the
    agent has beside them in memory that outlives it, and one that takes its place goes on from there; sooner where that
    takes less than a hundredth of the time. 0: the run ends when it dies. Deterministic and inline runs always end, and
    asynchronous learners lose nothing that was given to the others. Unit: updates."""
    batch_size: int = 32
    """Unrolls per update, all samplers together. Source: Espeholt et al. 2018, table D.3."""
    unroll_length: int = 20
    """Rows per unroll. Unit: agent steps. Source: Espeholt et al. 2018, table D.3."""
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """Optimiser. IMPALA uses RMSProp."""
    learning_rate: float = 6e-4
    """Initial learning rate. Source: Espeholt et al. 2018, table D.3."""
    schedule: Literal["linear", "polynomial", "constant"] = "linear"
    """Learning rate over the run: straight down to ``final_learning_rate`` at ``total_frames``; down to it as
    (1 - s / S) to the power of ``schedule_power``; or constant."""
    final_learning_rate: float = 0.0
    """Learning rate at the end of a linear or polynomial schedule, and from there on."""
    schedule_power: float = 2.0
    """Power of a polynomial schedule; 1 is a straight line. Source: elite_buffer_vtrace, which has 2."""
    schedule_updates: int = 0
    """S of a polynomial schedule, whose s is then the number of the update, 1 for the first; 0: both are counted in
    frames of the run. Unit: updates."""
    rmsprop_decay: float = 0.99
    """RMSProp's smoothing constant."""
    rmsprop_momentum: float = 0.0
    """RMSProp's momentum."""
    epsilon: float = 0.01
    """Added to the root of the squared gradients' mean (RMSProp, Adam). IMPALA: 0.01 for RMSProp."""
    adam_beta1: float = 0.9
    """Adam's first decay."""
    adam_beta2: float = 0.999
    """Adam's second decay."""
    clip_norm: float = 40.0
    """Gradients are scaled down to this global norm; 0: not clipped. Source: Espeholt et al. 2018, table D.3."""
    stem: str = ""
    """A pretrained stem, on the command line ``--stem``: the torso's weights are taken from this run (its newest
    checkpoint), folder of a checkpoint or ``.safetensors`` file when a run begins; empty: it starts like the rest."""
    stem_fc: bool = True
    """Take over the fully connected layer behind the stem's convolutions too."""
    freeze_conv: bool = False
    """Do not train the torso's convolutions."""
    freeze_fc: bool = False
    """Do not train the fully connected layer behind them."""
    publish_every: int = 1
    """Weights are published every so many updates."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Arithmetic of forward and backward; weights and optimiser stay float32. ``auto``: bf16 where the device computes
    with it, else fp32; what it chose is written to config.toml."""
    compile: bool = False
    """Compile forward and backward with torch.compile (needs a C++ compiler; slow first step)."""
    channels_last: bool = True
    """Keep images and convolution weights in channels-last layout (faster on most CPUs and GPUs)."""
    device: str = "auto"
    """Torch device of the learner; ``auto``: the run's device."""
    threads: int = 1
    """Torch threads of the learner; 0: chosen from the cores."""
    prefetch: int | Literal["auto"] = 2
    """Batches assembled ahead, off the training thread, one more being made; 0: none (always so in deterministic
    runs). ``auto``: more where the learner waits for assembly, fewer where batches only grow old."""
    assemblers: int | Literal["auto"] = 1
    """Threads that assemble them: draws one after the other, copies beside each other. ``auto``: one more where the
    learner waits and it made batches come faster when it was tried."""
    max_batch_age: int = 0
    """Batches are drawn at most so many updates before they are trained on: no more are drawn ahead, and where no
    sampler paces, older ones are dropped and counted; 0: no bound. Unit: updates."""
    max_policy_lag: int = 0
    """Unrolls whose newest row is older than so many updates are skipped and counted; 0: none are."""
    nonfinite_limit: int = 20
    """Consecutive updates that are skipped because the loss, a gradient or a new weight is not finite, before the run
    stops with a diagnosis."""
    hang_timeout_s: float = 300.0
    """A learner that shows no life for so long, as between two updates, is reported with its stack, and the run ends.
    Loading, saving and compiling are signs of life. Unit: seconds."""

    def rate(self, progress: float, update: int) -> float:
        """The learning rate at this share of the run, of the update with this number, 1 for the first.

        ``final + (first - final) * (1 - s / S) ** power``, and ``final`` from S on. s / S is ``progress``, or by the
        updates where a polynomial schedule says in how many it ends; a linear one has power 1.
        """
        if self.schedule == "constant":
            return self.learning_rate
        polynomial = self.schedule == "polynomial"
        if polynomial and self.schedule_updates:
            progress = update / self.schedule_updates
        left = 1.0 - min(max(progress, 0.0), 1.0)
        if polynomial:
            left = left**self.schedule_power if left else 0.0
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * left
