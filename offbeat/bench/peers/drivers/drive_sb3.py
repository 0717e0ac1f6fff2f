"""Stable-Baselines3, endless, environments in its own process.

A2C: five steps per update, each trained on once. DQN (``atari-dqn``): eight transitions trained on per step.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

peer_counter = import_module("peer_counter")

ENVS = {"atari": 16, "atari-deep": 16, "atari-dqn": 1, "cartpole": 8, "minatar": 16}
A2C = {"n_steps": 5, "ent_coef": 0.01, "vf_coef": 0.25}
DQN = {
    "buffer_size": 100_000,
    "learning_starts": 500,
    "train_freq": 4,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "target_update_interval": 1000,
    "exploration_initial_eps": 0.05,
}
"""As its authors tuned it for Atari, but exploring little from the start and learning early: at once in full work."""


def main() -> None:
    """Train until killed."""
    args = peer_counter.arguments()
    name, options = ("DQN", DQN) if args.task == "atari-dqn" else ("A2C", A2C)
    told = ", ".join(f"{option} {value}" for option, value in options.items())
    counter = peer_counter.Counter(
        "stable-baselines3", f"{name}, environments in-process: {ENVS[args.task]}; {told}", "frames stepped"
    )
    skip = args.frame_skip if args.task.startswith("atari") else 1
    build = {"atari": atari, "atari-deep": atari_deep, "atari-dqn": atari, "cartpole": cartpole, "minatar": minatar}
    envs, policy, policy_options = build[args.task](args)
    algorithm = getattr(import_module("stable_baselines3"), name)
    model = algorithm(policy, envs, device=args.device, policy_kwargs=policy_options, **options)

    def report(local_variables: dict[str, Any], _: dict[str, Any]) -> bool:
        counter.frames(local_variables["self"].num_timesteps * skip)
        return True

    model.learn(total_timesteps=2**53, callback=report, log_interval=10**9)


def atari(args: Any) -> tuple[Any, str, dict[str, Any]]:
    """Games preprocessed as Mnih et al. 2015, four frames stacked, and the network of that paper."""
    import_module("gymnasium").register_envs(import_module("ale_py"))
    util = import_module("stable_baselines3.common.env_util")
    stack = import_module("stable_baselines3.common.vec_env").VecFrameStack
    envs = util.make_atari_env(
        f"{args.game}NoFrameskip-v4", n_envs=ENVS[args.task], seed=0, wrapper_kwargs={"frame_skip": args.frame_skip}
    )
    return stack(envs, n_stack=4), "CnnPolicy", {}


def atari_deep(args: Any) -> tuple[Any, str, dict[str, Any]]:
    """The same games and the deep network of Espeholt et al. 2018."""
    envs, policy, _ = atari(args)
    build, units = import_module("peer_torsos").TORSOS["atari-deep"]
    return envs, policy, shared(units, lambda shape: build(shape[0]))


def cartpole(args: Any) -> tuple[Any, str, dict[str, Any]]:
    """CartPole-v1 and two layers of 64 units that policy and value share."""
    util = import_module("stable_baselines3.common.env_util")
    envs = util.make_vec_env("CartPole-v1", n_envs=ENVS["cartpole"], seed=0)
    return envs, "MlpPolicy", shared(64, vector_layers)


def minatar(args: Any) -> tuple[Any, str, dict[str, Any]]:
    """A MinAtar game through Gymnasium and the network of Young & Tian 2019."""
    import_module("minatar.gym").register_envs()
    util = import_module("stable_baselines3.common.env_util")
    name = f"MinAtar/{args.game.replace('_', ' ').title().replace(' ', '')}-v1"
    return util.make_vec_env(name, n_envs=ENVS["minatar"], seed=0), "MlpPolicy", shared(128, board_layers)


def shared(units: int, build: Callable[[Any], Any]) -> dict[str, Any]:
    """Options for features [B, ``units``] that policy and value share, from layers that ``build`` makes.

    ``build`` is given an observation's shape. By ``net_arch`` policy and value would each have layers of their own.
    """
    base: Any = import_module("stable_baselines3.common.torch_layers").BaseFeaturesExtractor

    class Shared(base):
        """Observations to features."""

        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, units)
            self.layers = build(observation_space.shape)

        def forward(self, observation: Any) -> Any:
            """float [B, ...] to [B, units]."""
            return self.layers(observation)

    return {"features_extractor_class": Shared, "net_arch": []}


def vector_layers(shape: tuple[int, ...]) -> Any:
    """Two layers of 64 units over a vector."""
    nn = import_module("torch.nn")
    return nn.Sequential(nn.Linear(shape[0], 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())


def board_layers(shape: tuple[int, ...]) -> Any:
    """16 filters of 3 x 3 over the board [10, 10, C], then 128 units."""
    nn = import_module("torch.nn")
    height, width, channels = shape

    module: Any = nn.Module

    class ChannelsFirst(module):
        """[B, H, W, C] to [B, C, H, W]."""

        def forward(self, board: Any) -> Any:
            """As a convolution takes it."""
            return board.permute(0, 3, 1, 2)

    units = 16 * (height - 2) * (width - 2)
    return nn.Sequential(
        ChannelsFirst(), nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(units, 128), nn.ReLU()
    )


if __name__ == "__main__":
    main()
