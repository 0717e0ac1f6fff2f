"""RLlib's IMPALA on its new stack, endless: one runner of eight environments, the learner in this process."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

peer_counter = import_module("peer_counter")

ENVS, FRAGMENT, BATCH = 8, 50, 500


def main() -> None:
    """Train until killed."""
    args = peer_counter.arguments()
    workload = f"IMPALA, 1 runner x {ENVS} environments, fragment {FRAGMENT}, batch {BATCH}"
    counter = peer_counter.Counter("ray", workload, "frames trained")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0")
    import_module("ray").init(
        include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=os.getcwd(), log_to_driver=False
    )
    skip = args.frame_skip if args.task.startswith("atari") else 1
    register = import_module("ray.tune.registry").register_env
    register("peer", cartpole() if args.task == "cartpole" else atari(args.game, skip))
    algorithm = configure(args).build_algo()
    while True:
        trained = algorithm.train().get("learners", {}).get("__all_modules__", {})
        counter.frames(int(trained.get("num_env_steps_trained_lifetime", 0)) * skip)


def configure(args: Any) -> Any:
    """The configuration of IMPALA for a task."""
    config = import_module("ray.rllib.algorithms.impala").IMPALAConfig()
    return (
        config.environment("peer")
        .framework("torch")
        .env_runners(num_env_runners=1, num_envs_per_env_runner=ENVS, rollout_fragment_length=FRAGMENT)
        .learners(num_learners=0, num_gpus_per_learner=1 if args.device == "cuda" else 0)
        .training(train_batch_size_per_learner=BATCH, entropy_coeff=0.01)
        .rl_module(**network(args.task))
        .reporting(min_time_s_per_iteration=5)
    )


def network(task: str) -> dict[str, Any]:
    """What RLlib is told of the network: a configuration of its own layers, or a module of ours."""
    if task.startswith("atari"):
        spec = import_module("ray.rllib.core.rl_module.rl_module").RLModuleSpec
        return {"rl_module_spec": spec(module_class=module(task))}
    model = import_module("ray.rllib.core.rl_module.default_model_config").DefaultModelConfig
    return {"model_config": model(fcnet_hiddens=[64, 64], vf_share_layers=True)}


def module(task: str) -> Any:
    """A module whose policy and value share the task's torso. RLlib's own layers for Atari would have 8 million
    weights: its convolutions pad.
    """
    nn = import_module("torch.nn")
    base: Any = import_module("ray.rllib.core.rl_module.torch").TorchRLModule
    with_value: Any = import_module("ray.rllib.core.rl_module.apis").ValueFunctionAPI

    class Shared(base, with_value):
        """Frames [B, 84, 84, 4] to logits and value."""

        def setup(self) -> None:
            """Called by RLlib once it has set the spaces."""
            torsos = import_module("peer_torsos")
            build, units = torsos.TORSOS[task]
            self.torso = build(self.observation_space.shape[-1])
            self.policy = nn.Linear(units, self.action_space.n)
            self.value = nn.Linear(units, 1)

        def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
            features = self.torso(batch["obs"].permute(0, 3, 1, 2))
            return {"action_dist_inputs": self.policy(features), "embeddings": features}

        def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
            logits = self._forward_train(batch)["action_dist_inputs"]
            return {"action_dist_inputs": logits}  # without the features, which the runner would send to the learner

        def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
            """Values [B] of the features that the batch's forward gave; they are computed where there are none."""
            features = self._forward_train(batch)["embeddings"] if embeddings is None else embeddings
            return self.value(features).squeeze(-1)

    return Shared


def atari(game: str, skip: int) -> Any:
    """A function that makes one game, preprocessed by RLlib's own wrapper, four frames stacked."""

    def make(_: Any) -> Any:
        gymnasium = import_module("gymnasium")
        gymnasium.register_envs(import_module("ale_py"))
        wrap = import_module("ray.rllib.env.wrappers.atari_wrappers").wrap_atari_for_new_api_stack
        bare = gymnasium.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0)
        return wrap(bare, dim=84, frameskip=skip, framestack=4)

    return make


def cartpole() -> Any:
    """A function that makes CartPole-v1."""
    return lambda _: import_module("gymnasium").make("CartPole-v1")


if __name__ == "__main__":
    main()
