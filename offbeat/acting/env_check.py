"""Whether an environment can be trained on, before an hour of training: ``offbeat envs check``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from offbeat.acting.env_making import LIMIT_S, Maker
from offbeat.acting.env_recorder import LeafLog, Log
from offbeat.acting.env_report import EnvReport, Findings, Sandbox
from offbeat.acting.env_trial import Trial, difference, play, takers
from offbeat.acting.env_verdicts import (
    describe_actions,
    describe_array,
    describe_leaf,
    judge_endings,
    judge_masks,
    judge_observations,
    judge_rewards,
)  # fmt: skip
from offbeat.envs.base import EnvConfig, Misbehaved, StateUnsupported, VectorEnv
from offbeat.envs.factories import PICTURES, drawing
from offbeat.envs.gymnasium import USED, channels_of, gymnasium_spec
from offbeat.envs.registry import env_spec
from offbeat.envs.shown import ALLOWED, picture_of
from offbeat.envs.spaces import MASK, action_spec, flatten_space
from offbeat.envs.vectorised import LEAST, check_asked_for, has_entry_point, id_of, singly
from offbeat.errors import called
from offbeat.types import LEGAL, EnvSpec

GRACE_S = 5.0
"""What is no playing may take so long. Unit: seconds."""
TALKATIVE = 10
"""Environments may print so many lines."""
RESTARTS = 3
"""So often it is reset with other seeds."""
COPIES = 3
"""At least so many are made where a factory makes several: what is a copy's own shows beside others."""
SHARES = 0.6, 0.2, 0.2
"""Of the time: a long trial, the same seed again, and the same in a new environment."""


def check_env(
    config: EnvConfig, given: Any = None, *, steps: int = 300, seconds: float = 10.0, seed: int = 0
) -> EnvReport:
    """Play an environment as a run would, and say what it is, what is wrong with it, and how to mend that.

    Whatever it raises is a line of the report. It is played for ``steps`` random steps, and as many from the same seed
    again in the same and in a new environment, for about ``seconds`` at most.

    Args:
        config: its switches; its id, where ``given`` is None.
        given: a class or function that makes it (see ``offbeat.envs.registry.make_env``), or one environment.

    Raises:
        EnvUnavailable: there is none of that id.
    """
    check = _Check(config, given, steps, seconds, seed)
    check.everything()
    name = config.id if given is None else called(given)
    return check.found.report(name)


class _Check:
    """One check under way; arguments as of ``check_env``."""

    def __init__(self, config: EnvConfig, given: Any, steps: int, seconds: float, seed: int) -> None:
        self.config, self.steps, self.seconds, self.seed = config, steps, seconds, seed
        self.found = Findings()
        self.box = Sandbox(self.found)
        self.maker = Maker(config, given, self.found, self.box)
        self.given = given

    def everything(self) -> None:
        """All of it, as far as the environment lets it."""
        try:
            with self.box.trying("checking it", None):
                alone = self.maker.alone()
                if not self.found.errors:
                    self.one() if alone else self.many()
                self.maker.describe()
        finally:
            self.maker.close()
        if self.box.printed > TALKATIVE:
            self.found.warning(
                f"it prints a lot, {self.box.printed} lines meanwhile, and in a run every copy of it does: print only "
                "where that is asked for"
            )

    def one(self) -> None:
        """A Gymnasium environment."""
        for env in self.maker.one():
            if not isinstance(env, gymnasium.Env):
                self.many()  # takes it, or says what it is
            elif (spec := self.describe(env)) is not None:
                self.play(spec, 1, self.maker.log)
                self.at_once(spec)
                with self.box.trying("looking at its render modes", GRACE_S, self.found.warning):
                    self.look(env)

    def many(self) -> None:
        """Environments that are made in batches."""
        given, made = self.given, []
        with self.box.trying("making it", LIMIT_S):
            made.append(env_spec(self.config, given))
        if not made:
            return
        for key, array in made[0].observation.items():
            self.found.facts[f"observation {key!r}"] = describe_array(array, key in made[0].stacked)
        self.found.facts["actions"] = describe_actions(None, made[0])
        self.say_takers(made[0])
        players = made[0].players
        games = -(-COPIES // players) if self.maker.by_factory else 1
        self.play(made[0], games * players, None)

    def describe(self, env: gymnasium.Env[Any, Any]) -> EnvSpec | None:
        """Its spaces, and what they become; None where they cannot be used."""
        made: list[EnvSpec] = []
        with self.box.trying("its observation_space", GRACE_S):
            channels = channels_of(self.config, USED)
            leaves = flatten_space(env.observation_space, self.config.id, channels)
            self.maker.log.leaves = [LeafLog(leaf) for leaf in leaves.values()]
            for leaf in leaves.values():
                self.found.facts[f"observation {leaf.key!r}"] = describe_leaf(leaf, channels)
        with self.box.trying("its action_space", GRACE_S):
            action_spec(env.action_space, self.config.id)
        if self.found.errors:
            return None
        with self.box.trying("its spec", GRACE_S):
            check_asked_for(self.config, self.env_id())
            made.append(gymnasium_spec(singly(self.config), env))
        if not made:
            return None
        if LEGAL in made[0].observation:  # a mask is no feature, whatever the environment calls it
            for key in (MASK, LEGAL):
                self.found.facts.pop(f"observation {key!r}", None)
        self.found.facts["actions"] = describe_actions(env.action_space, made[0])
        self.say_takers(made[0])
        return made[0]

    def say_takers(self, spec: EnvSpec) -> None:
        """Which agents can be trained on it."""
        good, others = takers(spec)
        reasons: dict[str, list[str]] = {}
        for name, reason in others.items():
            reasons.setdefault(reason, []).append(name)
        parts = [", ".join(good) or "none", *(f"not {', '.join(names)}: {why}" for why, names in reasons.items())]
        self.found.facts["agents"] = "; ".join(parts)
        if not good:
            self.found.error(f"no agent can be trained on it: {next(iter(reasons), '')}")

    def play(self, spec: EnvSpec, count: int, log: Log | None) -> None:
        """Three trials, and what is to be said of them."""
        first = self.maker.vector(count)
        if first is None:
            return
        one = self.trial(spec, first, SHARES[0])
        if not self.found.errors:
            two = self.trial(spec, first, SHARES[1])
            self.restart(first, one)
            saved = self.saves(first)
            second = None if self.maker.lent is not None else self.maker.vector(count)
            three = None if second is None else self.trial(spec, second, SHARES[2])
            self.compare(one, two, three, saved)
        self.judge(spec, one, log)

    def at_once(self, spec: EnvSpec) -> None:
        """As many copies as are stepped at once, of an id that has a vector entry point; and which ways were checked.

        What a run would not take all the same is a warning, unless the vector entry point is insisted on.
        """
        found, vectorised = self.found, self.config.vectorised
        if not has_entry_point(self.env_id()):
            return
        if vectorised == "no":
            found.facts["stepped"] = (
                "one after the other, as env.vectorised = 'no'; its vector entry point was not tried"
            )
            return
        found.facts["stepped"] = "one after the other; its vector entry point cannot be taken"
        envs = self.maker.by_vector(LEAST, found.error if vectorised == "yes" else found.warning)
        if envs is None:
            return
        before, seen = len(found.errors), Findings()
        one = self.trial(spec, envs, SHARES[1])
        if len(found.errors) > before:
            return
        two = self.trial(spec, envs, SHARES[2])
        if again := difference(one, two):
            seen.warning(f"reset(seed=...) does not repeat itself: with one seed and the same actions {again}")
        if vectorised == "yes" and (saved := self.saves(envs)):
            seen.warning(f"there are no deterministic runs of it: {saved}")
        judge_observations(seen, spec, one, None)
        judge_rewards(seen, one, None)
        judge_endings(seen, spec, one, None)
        for lines, others, note in (
            (seen.errors, found.errors, found.error), (seen.warnings, found.warnings, found.warning),
        ):  # fmt: skip
            for line in lines:
                if line not in others:
                    note(f"stepped at once, by its vector entry point: {line}")
        rate = one.steps * one.num_envs / max(one.seconds, 1e-9)
        when = (
            "always, as env.vectorised = 'yes'"
            if vectorised == "yes"
            else f"from {LEAST} copies on, unless it is deterministic"
        )
        found.facts["stepped"] = (
            f"checked both ways, one alone, and {LEAST} at once by its vector entry point ({rate:,.0f} steps per "
            f"second); a run takes that {when}"
        )

    def env_id(self) -> str:
        """The id that Gymnasium makes it by; empty: it is made otherwise."""
        return (
            ""
            if self.maker.lent is not None
            else id_of("gymnasium" if self.given is None else "", self.config.id, self.given)
        )

    def trial(self, spec: EnvSpec, envs: VectorEnv, share: float) -> Trial:
        """Random steps from the seed."""
        trial = Trial(envs.spec, envs.num_envs)
        if (envs.spec.observation, envs.spec.action) != (spec.observation, spec.action):
            self.found.error("two of them have different spaces: all that one factory makes must have the same")
            return trial
        seconds = share * self.seconds
        with self.box.trying("playing it", seconds + GRACE_S):
            play(envs, trial, self.seed, self.rounds(envs.spec), seconds)
        return trial

    def rounds(self, spec: EnvSpec) -> int:
        """So many steps each copy of a game takes."""
        return max(1, self.steps // spec.players)

    def restart(self, envs: VectorEnv, trial: Trial) -> None:
        """Resets with other seeds, for environments whose episodes do not end by themselves."""
        with self.box.trying("starting it again", GRACE_S):
            for seed in range(self.seed + 1, self.seed + 1 + RESTARTS):
                envs.reset(seed)
                rows = envs.recv()
                trial.starts += [
                    {key: value[i] for key, value in rows.observation.items()} for i in range(envs.num_envs)
                ]

    def saves(self, envs: VectorEnv) -> str:
        """Why the environments cannot be saved exactly; empty: they can."""
        why = []
        with self.box.trying("state()", GRACE_S):
            try:
                envs.state()
            except StateUnsupported as error:
                why.append(str(error))
        return "; ".join(why)

    def compare(self, one: Trial, two: Trial, three: Trial | None, saved: str) -> None:
        """Whether a seed gives the same episodes again."""
        again, anew = difference(one, two), "" if three is None else difference(one, three)
        if saved:
            self.found.facts["one seed again"] = f"the same rows; but {saved}"
        if again or anew:
            how = f"{anew} in a new environment" if anew else f"{again} after the second reset, of what went before"
            self.found.warning(
                f"reset(seed=...) does not repeat itself: with one seed and the same actions {how}; draw everything "
                "from self.np_random behind super().reset(seed=seed) and keep nothing from before; until then there "
                "are no deterministic runs of it, which those of engine = 'inline' are too, and no exact resume"
            )
            self.found.facts["one seed again"] = "other rows: no deterministic runs"
        elif not saved:
            self.found.facts["one seed again"] = "the same rows: deterministic and exactly resumable runs are possible"
        starts = one.starts
        if len(starts) > 1:
            alike = all(np.array_equal(starts[0][k], start[k], equal_nan=True) for start in starts for k in start)
            self.found.facts["starts"] = "all alike" if alike else "differ from seed to seed"

    def judge(self, spec: EnvSpec, trial: Trial, log: Log | None) -> None:
        """Everything that can be seen from what came out."""
        found = self.found
        judge_observations(found, spec, trial, log)
        judge_rewards(found, trial, log)
        judge_endings(found, spec, trial, log)
        judge_masks(found, spec, trial, log)
        if log is not None:
            for line in log.moved.values():
                if not any(error.endswith(line) for error in found.errors):
                    found.error(line)
        if not trial.steps:
            return
        took = sum(log.step_s) if log is not None else trial.seconds
        steps = log.steps if log is not None else trial.steps * trial.num_envs
        if took:
            found.facts["speed"] = f"{steps / took:,.0f} steps per second on one core, of {steps} steps"
        wanted = self.rounds(trial.spec)
        if trial.steps < wanted and not found.errors:
            found.warning(
                f"it is slow: {trial.steps} of {wanted} steps were played in {trial.seconds:.1f} s; a run of a million "
                f"steps takes {1e6 * trial.seconds / trial.steps / trial.num_envs / 3600:,.0f} hours on one core"
            )

    def look(self, env: gymnasium.Env[Any, Any]) -> None:
        """Whether it draws itself."""
        modes, mode = env.metadata.get("render_modes") or [], env.render_mode
        text = f"{', '.join(map(str, modes)) or 'no modes'}; made with render_mode={mode!r}"
        films = mode == PICTURES or (PICTURES in modes and (self.given is None or drawing(self.given) is not None))
        self.found.facts["pictures"] = f"{text}; films show {'it' if films else 'observations'}"
        if mode == "human":
            self.found.warning(
                "it is made with render_mode='human', which draws a window at every step: slow, and none can be opened "
                "on a server; make it without, and with 'rgb_array' for films"
            )
        if mode != PICTURES:
            return
        shown: list[Any] = []
        with self.box.trying("drawing it", GRACE_S, self.found.warning):
            env.reset(seed=self.seed)
            with self.box.calling("render()", "; films of it fail"):
                shown.append(env.render())
        if shown and shown[0] is None:
            self.found.warning(f"render() gave None, so that films of it show observations; {ALLOWED}")
        elif shown:
            try:
                picture_of(shown[0], self.config.id)
            except Misbehaved as error:
                self.found.warning(f"{error}; films of it fail")
