"""Stable-Baselines3's A2C, endless: environments in its own process, five steps per update, frames trained once."""

from __future__ import annotations

from importlib import import_module
from typing import Any

peer_counter = import_module("peer_counter")

N_STEPS = 5
ENVS = {"atari": 16, "atari-deep": 16, "cartpole": 8, "minatar": 16}


def main() -> None:
    """Train until killed."""
    args = peer_counter.arguments()
    counter = peer_counter.Counter(
        "stable-baselines3", f"A2C, {ENVS[args.task]} environments in-process, n_steps {N_STEPS}", "frames stepped"
    )
    skip = args.frame_skip if args.task.startswith("atari") else 1
    build = {"atari": atari, "atari-deep": atari_deep, "cartpole": cartpole, "minatar": minatar}[args.task]
    envs, policy, policy_options = build(args)
    model = import_module("stable_baselines3").A2C(
        policy,
        envs,
        n_steps=N_STEPS,
        ent_coef=0.01,
        vf_coef=0.25,
        device=args.device,
        policy_kwargs=policy_options,
    )

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
    return envs, policy, {"features_extractor_class": deep_torso(), "net_arch": []}


def cartpole(args: Any) -> tuple[Any, str, dict[str, Any]]:
    """CartPole-v1 and two layers of 64 units that policy and value share; by ``net_arch`` each would have its own."""
    util = import_module("stable_baselines3.common.env_util")
    options = {"features_extractor_class": shared_layers(), "net_arch": []}
    return util.make_vec_env("CartPole-v1", n_envs=ENVS["cartpole"], seed=0), "MlpPolicy", options


def minatar(args: Any) -> tuple[Any, str, dict[str, Any]]:
    """A MinAtar game through Gymnasium and the network of Young & Tian 2019."""
    import_module("minatar.gym").register_envs()
    util = import_module("stable_baselines3.common.env_util")
    name = f"MinAtar/{args.game.replace('_', ' ').title().replace(' ', '')}-v1"
    options = {"features_extractor_class": small_torso(), "net_arch": []}
    return util.make_vec_env(name, n_envs=ENVS["minatar"], seed=0), "MlpPolicy", options


def shared_layers() -> Any:
    """A features extractor: two layers of 64 units over a vector."""
    nn = import_module("torch.nn")
    base: Any = import_module("stable_baselines3.common.torch_layers").BaseFeaturesExtractor

    class SharedLayers(base):
        """A vector to features [B, 64]."""

        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, 64)
            size = observation_space.shape[0]
            self.layers = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())

        def forward(self, vector: Any) -> Any:
            """float [B, D] to [B, 64]."""
            return self.layers(vector)

    return SharedLayers


def deep_torso() -> Any:
    """A features extractor: the residual network over stacked frames [4, 84, 84]."""
    base: Any = import_module("stable_baselines3.common.torch_layers").BaseFeaturesExtractor
    torsos = import_module("peer_torsos")

    class DeepTorso(base):
        """Frames to features [B, 256]."""

        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, torsos.RESIDUAL_UNITS)
            self.layers = torsos.residual_torso(observation_space.shape[0])

        def forward(self, frames: Any) -> Any:
            """float [B, 4, 84, 84] in [0, 1] to [B, 256]."""
            return self.layers(frames)

    return DeepTorso


def small_torso() -> Any:
    """A features extractor: 16 filters of 3 x 3 over the board [10, 10, C], then 128 units."""
    nn = import_module("torch.nn")
    base: Any = import_module("stable_baselines3.common.torch_layers").BaseFeaturesExtractor

    class SmallTorso(base):
        """Board to features [B, 128]."""

        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, 128)
            height, width, channels = observation_space.shape
            units = 16 * (height - 2) * (width - 2)
            self.layers = nn.Sequential(
                nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(units, 128), nn.ReLU()
            )

        def forward(self, board: Any) -> Any:
            """float [B, 10, 10, C] to [B, 128]."""
            return self.layers(board.permute(0, 3, 1, 2))

    return SmallTorso


if __name__ == "__main__":
    main()
