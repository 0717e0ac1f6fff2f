"""What random play and a human score on 57 Atari games, and an agent's score as a percentage of the way between.

Values: Wang et al. 2016 ("Dueling Network Architectures for Deep Reinforcement Learning"), table of raw scores from
no-op starts, as Bellemare et al. 2017 (C51, figure 14) print them again. Means over whole games of at most 108,000
frames (30 minutes) that begin with up to 30 no-ops. The random scores of 49 of the games are those of Mnih et al. 2015;
the human ones are not (Pong 9.3 there, Alien 6,875): games were cut after 5 minutes there.
"""

from __future__ import annotations

import re

from offbeat.envs.atari_games import game_stem

SCORES: dict[str, tuple[float, float]] = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "Asteroids": (719.1, 47_388.7),
    "Atlantis": (12_850.0, 29_028.1),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37_187.5),
    "BeamRider": (363.9, 16_926.5),
    "Berzerk": (123.7, 2630.4),
    "Bowling": (23.1, 160.7),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "Centipede": (2090.9, 12_017.0),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10_780.5, 35_829.4),
    "Defender": (2874.5, 18_688.9),
    "DemonAttack": (152.1, 1971.0),
    "DoubleDunk": (-18.6, -16.4),
    "Enduro": (0.0, 860.5),
    "FishingDerby": (-91.7, -38.7),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Gravitar": (173.0, 3351.4),
    "Hero": (1027.0, 30_826.4),
    "IceHockey": (-11.2, 0.9),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22_736.3),
    "MontezumaRevenge": (0.0, 4753.3),
    "MsPacman": (307.3, 6951.6),
    "NameThisGame": (2292.3, 8049.0),
    "Phoenix": (761.4, 7242.6),
    "Pitfall": (-229.4, 6463.7),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69_571.3),
    "Qbert": (163.9, 13_455.0),
    "Riverraid": (1338.5, 17_118.0),
    "RoadRunner": (11.5, 7845.0),
    "Robotank": (2.2, 11.9),
    "Seaquest": (68.4, 42_054.7),
    "Skiing": (-17_098.1, -4336.9),
    "Solaris": (1236.3, 12_326.7),
    "SpaceInvaders": (148.0, 1668.7),
    "StarGunner": (664.0, 10_250.0),
    "Surround": (-10.0, 6.5),
    "Tennis": (-23.8, -8.3),
    "TimePilot": (3568.0, 5229.2),
    "Tutankham": (11.4, 167.6),
    "UpNDown": (533.4, 11_693.2),
    "Venture": (0.0, 1187.5),
    "VideoPinball": (16_256.9, 17_667.9),
    "WizardOfWor": (563.5, 4756.5),
    "YarsRevenge": (3092.9, 54_576.9),
    "Zaxxon": (32.5, 9173.3),
}
"""Game as offbeat writes it -> (random, human) mean return in raw reward, as printed."""

RANDOM_AS_USED = {"VideoPinball": 0.0}
"""Random scores that published normalised scores are made with, where they are not the printed ones.

With 16,256.9 for Video Pinball the printed scores of prioritised duelling have a mean of 1,120 % over all games; with 0
it is 591.9 %, as Wang et al. print it. C51's 701 % and DQN's 228 % need the 0 too, and Agent57 (Badia et al. 2020)
prints it. Medians are the same with either.
"""


def scored_game(env_id: str) -> str | None:
    """The key of ``SCORES`` that an environment id names in any of its spellings, such as ``ALE/Pong-v5``; or None."""
    plain = _plain(game_stem(env_id))
    return next((game for game in SCORES if _plain(game) == plain), None)


def human_normalised(env_id: str, score: float) -> float | None:
    """100 (score − random) / (human − random): 0 is random play, 100 a human. None for what is not in ``SCORES``.

    Args:
        env_id: environment id, in any of its spellings.
        score: mean return of whole games, in raw reward.
    """
    game = scored_game(env_id)
    if game is None:
        return None
    random, human = SCORES[game]
    random = RANDOM_AS_USED.get(game, random)
    return 100 * (score - random) / (human - random)


def _plain(name: str) -> str:
    """``Ms_Pacman`` -> ``mspacman``."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
