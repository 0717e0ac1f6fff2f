"""How many actions each Atari game has in its minimal set: asking the emulator takes a tenth of a second for each."""

from __future__ import annotations

_GAMES = {
    3: "Backgammon Freeway Skiing",
    4: "Atlantis Atlantis2 Blackjack Breakout Casino Kaboom",
    5: "Frogger Pacman Surround Tetris VideoCheckers",
    6: (
        "AirRaid BasicMath Bowling Carnival DemonAttack Galaxian KingKong NameThisGame Pong Pooyan Qbert "
        "SirLancelot SpaceInvaders UpNDown"
    ),
    7: "Assault",
    8: "Gopher Phoenix Tutankham",
    9: "Asterix BeamRider CrazyClimber Enduro Koolaid LostLuggage MsPacman VideoPinball",
    10: "Amidar MrDo Othello TicTacToe3D TimePilot VideoChess WizardOfWor",
    12: "Turmoil",
    14: "Asteroids KeystoneKapers KungFuMaster",
    16: "JourneyEscape",
    18: (
        "Adventure Alien BankHeist BattleZone Berzerk Boxing Centipede ChopperCommand Crossbow Darkchambers "
        "Defender DonkeyKong DoubleDunk Earthworld ElevatorAction Entombed Et FishingDerby FlagCapture Frostbite "
        "Gravitar Hangman HauntedHouse Hero HumanCannonball IceHockey Jamesbond Kangaroo Klax Krull LaserGates "
        "MarioBros MiniatureGolf MontezumaRevenge Pitfall Pitfall2 PrivateEye Riverraid RoadRunner Robotank "
        "Seaquest Solaris SpaceWar StarGunner Superman Tennis Trondead Venture VideoCube WordZapper YarsRevenge "
        "Zaxxon"
    ),
}
ACTIONS = {game: count for count, games in _GAMES.items() for game in games.split()}
"""Game -> number of actions, as ale-py 0.12.1 has them; others are asked for."""
