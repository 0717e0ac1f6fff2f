"""Games played by hand, by a list and by an agent: what is chosen is what is taken, and what is asked for ends them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest

from offbeat.acting.demonstrating import Recorder
from offbeat.agents.dqn import Config
from offbeat.agents.make import make_agent
from offbeat.envs.base import EnvConfig
from offbeat.envs.meanings import action_meanings
from offbeat.envs.registry import make_env
from offbeat.errors import UserError
from offbeat.report.by_agent import Trained
from offbeat.report.by_hand import Hand, Script, play_on, read_actions
from offbeat.report.keys import Bindings, Keyboard
from offbeat.report.pictures import Camera
from offbeat.runtime.clock import VirtualClock

CATCH = EnvConfig(id="toy/catch", length=6)


def test_a_list_is_played_to_its_end_or_for_so_many_episodes():
    env, recorder = make_env(CATCH, 1), Recorder()
    played = play_on(env, Script([0] * 12), recorder=recorder)
    assert played.steps == 12 and len(played.returns) == 2
    made = recorder.demonstration({})
    assert made is not None and made.transitions == 12 and (made.arrays["action"] == 0).all()
    assert made.arrays["reward"].sum() == pytest.approx(sum(played.returns))
    assert play_on(env, Script([0] * 99), episodes=3).steps == 15
    left = iter([False] * 4 + [True])
    assert play_on(env, Script([0] * 99), stop=lambda: next(left)).steps == 4


@pytest.mark.parametrize(("text", "found"), [
    ("0 1,2\n2*3 # 5 is none", [0, 1, 2, 2, 2, 2]), ("LEFT*2 noop", [1, 1, 0]),
])  # fmt: skip
def test_actions_are_read_by_number_and_by_name(text: str, found: list[int], tmp_path: Path):
    file = tmp_path / "moves.txt"
    file.write_text(text)
    assert read_actions(file, ("NOOP", "LEFT", "RIGHT"), 3) == found


@pytest.mark.parametrize("text", ["3", "-1", "UP", "1*0", "1*x", "1*99999999999", "٣", "# nothing"])
def test_what_is_no_action_is_refused(text: str, tmp_path: Path):
    file = tmp_path / "moves.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=r"^actions: .*") as error:
        read_actions(file, (), 3)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_actions(tmp_path / "none", (), 3)


def hand_of(read: int, noop: int | None, out: io.StringIO) -> tuple[Hand, Camera, VirtualClock]:
    clock = VirtualClock()
    camera = Camera(make_env(CATCH, 1))
    keyboard = Keyboard(read, clock)
    wait = keyboard.wait

    def passing(seconds: float) -> bool:  # time goes by while it waits
        clock.sleep(max(0.0, seconds))
        return wait(0)

    keyboard.wait = passing  # type: ignore[method-assign]
    return Hand(camera, keyboard, Bindings((), 3, noop), out, 10.0, "catch ", clock), camera, clock


def test_a_person_plays_at_the_games_pace_or_is_waited_for():
    read, write = os.pipe()
    out = io.StringIO()
    hand, camera, clock = hand_of(read, 1, out)
    env = camera.env
    env.reset(0)
    chosen = []
    for keys in (b"2", b"", b"", b"0"):
        os.write(write, keys) if keys else None
        action = hand.choose(env.recv())
        assert action is not None
        chosen.append(int(action[0]))
        env.send(action)
    assert chosen == [2, 2, 1, 0] or chosen == [2, 1, 1, 0]  # a key is held for 0.12 s, and 0.1 s pass between two
    assert clock.now() == pytest.approx(0.4) and "catch return 0" in out.getvalue()
    waiting, camera, _ = hand_of(read, None, out)
    camera.env.reset(0)
    os.write(write, b"k1")
    first = waiting.choose(camera.env.recv())
    assert first is not None and first.tolist() == [1]
    camera.env.send(first)
    os.write(write, b"q")
    assert waiting.choose(camera.env.recv()) is None
    os.close(read)
    os.close(write)


def test_an_agent_plays_and_explores_as_much_as_it_is_told():
    env = make_env(CATCH, 1)
    agent = make_agent("dqn", Config(hidden_size=(8,)), env.spec, "cpu")
    greedy = [_actions(env, Trained(agent, env.spec, greedy=True, epsilon=0.0, seed=seed)) for seed in (0, 1)]
    assert greedy[0] == greedy[1] and len(greedy[0]) == 50
    drawn = _actions(env, Trained(agent, env.spec, greedy=True, epsilon=1.0, seed=0))
    assert set(drawn) == {0, 1, 2}


def _actions(env: object, chooser: Trained) -> list[int]:
    recorder = Recorder()
    play_on(env, chooser, episodes=10, recorder=recorder)  # type: ignore[arg-type]
    made = recorder.demonstration({})
    assert made is not None
    return made.arrays["action"][made.arrays["valid"]].tolist()  # type: ignore[no-any-return]


def test_environments_name_their_actions_where_they_can():
    assert action_meanings(make_env(CATCH, 1)) == ()
    pytest.importorskip("minatar")
    assert action_meanings(make_env(EnvConfig(id="minatar/breakout"), 1)) == ("NOOP", "LEFT", "RIGHT")
    assert np.array(action_meanings(make_env(EnvConfig(id="minatar/seaquest"), 1)))[-1] == "FIRE"
