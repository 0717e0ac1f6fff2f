"""Sample Factory's APPO with one pass over each batch, endless; Atari through envpool, CartPole through Gymnasium."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

peer_counter = import_module("peer_counter")

COMMON = ("--num_workers=1", "--num_epochs=1", "--num_batches_per_epoch=1", "--rollout=32")
ATARI = ("--env_agents=32", "--batch_size=512")
DEEP = (*ATARI, "--encoder_conv_architecture=resnet_impala", "--encoder_conv_mlp_layers=256")
CARTPOLE = (
    "--num_envs_per_worker=32", "--worker_num_splits=2", "--use_rnn=False", "--recurrence=1", "--batch_size=1024",
    "--encoder_mlp_layers", "64", "64",
)  # fmt: skip
WORKLOADS = {
    "atari": "APPO, one pass, 1 worker x 32 environments of envpool, rollout 32, batch 512",
    "atari-deep": "APPO, one pass, 1 worker x 32 environments of envpool, rollout 32, batch 512, resnet_impala",
    "cartpole": "APPO, one pass, 1 worker x 32 environments, rollout 32, batch 1024",
}


def main() -> None:
    """Train until killed."""
    args = peer_counter.arguments()
    counter = peer_counter.Counter("sample-factory", WORKLOADS[args.task], "frames trained")
    device = "gpu" if args.device == "cuda" else "cpu"
    options = [f"--device={device}", "--experiment=run", f"--train_dir={os.getcwd()}", f"--train_for_env_steps={2**53}"]
    options += [*COMMON, "--restart_behavior=overwrite"]
    config = cartpole(options) if args.task == "cartpole" else atari(args, options)
    config, runner = import_module("sample_factory.train").make_runner(config)
    runner.register_observer(observer(counter))
    status = runner.init()
    if status == import_module("sample_factory.algo.utils.misc").ExperimentStatus.SUCCESS:
        status = runner.run()
    sys.exit(f"Sample Factory ended with status {status}")


def atari(args: Any, options: list[str]) -> Any:
    """The configuration of its own envpool example: the network of Mnih et al. 2015, or its own deep one."""
    example = import_module("sf_examples.envpool.atari.train_envpool_atari")
    example.register_atari_components()
    network = DEEP if args.task == "atari-deep" else ATARI
    game = f"--env=atari_{args.game.lower()}"
    return example.parse_atari_args([game, f"--env_frameskip={args.frame_skip}", *options, *network])


def cartpole(options: list[str]) -> Any:
    """The configuration of its own Gymnasium example with two layers of 64 units."""
    example = import_module("sf_examples.train_gym_env")
    example.register_custom_components()
    return example.parse_custom_args(["--env=CartPole-v1", *options, *CARTPOLE])


def observer(counter: Any) -> Any:
    """Tells ``counter`` after each training step how many frames the learner has trained on."""
    base: Any = import_module("sample_factory.algo.runners.runner").AlgoObserver

    class Observer(base):
        """Called by the runner in its own process."""

        def on_training_step(self, runner: Any, training_iteration_since_resume: int) -> None:
            """The runner's counter already includes skipped frames."""
            counter.frames(sum(runner.env_steps.values()))

    return Observer()


if __name__ == "__main__":
    main()
