"""The table of random and human scores: complete, found by every spelling of a game, and what papers print with it."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.envs.atari_games import find_game, game_names
from offbeat.envs.atari_scores import RANDOM_AS_USED, SCORES, human_normalised, scored_game
from offbeat.scoring.statistics import mean_over_games, median_over_games

PRIORITISED_DUELLING = {
    "Alien": 3941.0, "Amidar": 2296.8, "Assault": 11477.0, "Asterix": 375080.0, "Asteroids": 1192.7, "Atlantis":
    395762.0, "BankHeist": 1503.1, "BattleZone": 35520.0, "BeamRider": 30276.5, "Berzerk": 3409.0, "Bowling": 46.7,
    "Boxing": 98.9, "Breakout": 366.0, "Centipede": 7687.5, "ChopperCommand": 13185.0, "CrazyClimber": 162224.0,
    "Defender": 41324.5, "DemonAttack": 72878.6, "DoubleDunk": -12.5, "Enduro": 2306.4, "FishingDerby": 41.3,
    "Freeway": 33.0, "Frostbite": 7413.0, "Gopher": 104368.2, "Gravitar": 238.0, "Hero": 21036.5, "IceHockey": -0.4,
    "Jamesbond": 812.0, "Kangaroo": 1792.0, "Krull": 10374.4, "KungFuMaster": 48375.0, "MontezumaRevenge": 0.0,
    "MsPacman": 3327.3, "NameThisGame": 15572.5, "Phoenix": 70324.3, "Pitfall": 0.0, "Pong": 20.9, "PrivateEye":
    206.0, "Qbert": 18760.3, "Riverraid": 20607.6, "RoadRunner": 62151.0, "Robotank": 27.5, "Seaquest": 931.6,
    "Skiing": -19949.9, "Solaris": 133.4, "SpaceInvaders": 15311.5, "StarGunner": 125117.0, "Surround": 1.2,
    "Tennis": 0.0, "TimePilot": 7553.0, "Tutankham": 245.9, "UpNDown": 33879.1, "Venture": 48.0, "VideoPinball":
    479197.0, "WizardOfWor": 12352.0, "YarsRevenge": 69618.1, "Zaxxon": 13886.0,
}  # fmt: skip
"""Raw scores from no-op starts. Source: Wang et al. 2016, printed again by Bellemare et al. 2017, figure 14."""

MNIH_RANDOM = {
    "Alien": 227.8, "Atlantis": 12850, "Breakout": 1.7, "DoubleDunk": -18.6, "FishingDerby": -91.7, "Hero": 1027,
    "Kangaroo": 52, "Pong": -20.7, "Riverraid": 1339, "Seaquest": 68.4, "VideoPinball": 16257, "Zaxxon": 32.5,
}  # fmt: skip
"""Random play. Source: Mnih et al. 2015, extended data table 2, rounded there."""


def test_the_table_holds_57_games_of_ours_and_a_human_beats_random_play() -> None:
    assert len(SCORES) == 57
    assert all(random < human for random, human in SCORES.values())
    assert set(RANDOM_AS_USED) <= set(SCORES)
    pytest.importorskip("ale_py")
    assert set(SCORES) <= set(game_names())


def test_random_scores_are_those_of_the_first_paper() -> None:
    assert {game: SCORES[game][0] for game in MNIH_RANDOM} == pytest.approx(MNIH_RANDOM, abs=0.51)


def test_published_scores_of_57_games_give_the_published_median_and_mean() -> None:
    assert set(PRIORITISED_DUELLING) == set(SCORES)
    strata = [np.array([human_normalised(game, score)]) for game, score in PRIORITISED_DUELLING.items()]
    assert median_over_games(strata) == pytest.approx(172.1, abs=0.05)
    assert mean_over_games(strata) == pytest.approx(591.9, abs=0.05)


def test_random_play_is_0_and_a_human_100() -> None:
    for game, (random, human) in SCORES.items():
        assert human_normalised(game, RANDOM_AS_USED.get(game, random)) == 0
        assert human_normalised(game, human) == pytest.approx(100)
    assert human_normalised("Pong", 21) == pytest.approx(4170 / 35.3)
    assert human_normalised("Breakout", -1.7) == pytest.approx(-340 / 28.8)


def test_every_spelling_of_a_game_is_found_as_environments_find_it() -> None:
    pytest.importorskip("ale_py")
    for game, rom in game_names().items():
        for plain in (game, rom, f"ALE/{game}-v5", f"{game}NoFrameskip-v4", f"{game}NoFrameSkip-v4", f"{game}-v5"):
            for name in (plain, plain.lower(), plain.upper()):
                assert find_game(name) == game
                assert scored_game(name) == (game if game in SCORES else None)


@pytest.mark.parametrize(
    "name", ["minatar/breakout", "procgen:procgen-chaser-v0", "toy/catch", "CartPole-v1", "", "v4"]
)
def test_what_is_no_atari_game_has_no_human_score(name: str) -> None:
    assert scored_game(name) is None
    assert human_normalised(name, 1.0) is None
