"""Settings ranked by their score, with what tells them apart as columns, or in lines where that is much."""

from __future__ import annotations

from typing import Any

from offbeat.scoring.ranking import MOST_COLUMNS, Scored, plain, tables


def one(score: float, name: str = "grid", environment: str = "toy/catch", **setting: Any) -> Scored:
    options = {key.replace("__", "."): str(value) for key, value in setting.items()}
    return Scored(name, options, environment, score, 800)


def rows(text: str) -> list[list[str]]:
    """Cells of a table's rows, its head first, without the line below it."""
    head, _, *lines = text.splitlines()
    return [[cell for cell in line.split("  ") if cell] for line in (head, *lines)]


def test_the_best_setting_of_an_environment_comes_first_and_equal_ones_share_their_rank() -> None:
    scores = {0.1: [1.0, 2.0], 0.2: [5.0, 7.0], 0.3: [6.0, 6.0], 0.4: [0.0, 1.0]}
    scored = [one(score, learner__learning_rate=rate) for rate, found in scores.items() for score in found]
    title, table = tables([*scored, one(9.0, environment="toy/tmaze", learner__learning_rate=0.1)], "Scores")
    head, *found = rows(table)
    assert title == "Scores"
    assert head[-1].strip() == "learning_rate"
    assert [(row[0].strip(), row[1].strip(), row[-1].strip()) for row in found] == [
        ("1", "grid #2", "0.2"), ("1", "grid #3", "0.3"), ("3", "grid #1", "0.1"), ("4", "grid #4", "0.4"),
        ("1", "grid #1", "0.1"),
    ]  # fmt: skip


def test_what_does_not_differ_and_what_only_follows_has_no_column() -> None:
    scored = [one(rate, env__sticky=rate, eval_env__sticky=rate, agent__discount=0.9) for rate in (0.0, 0.25)]
    head, *_ = rows(tables(scored, "Scores")[1])
    assert [cell.strip() for cell in head[-2:]] == ["human %", "sticky"]
    scored = [one(0.5, eval_env__sticky=rate, env__sticky=0) for rate in (0.0, 0.25)]
    assert rows(tables(scored, "Scores")[1])[0][-1].strip() == "sticky"


def test_many_differences_stand_in_lines_below() -> None:
    names = [f"agent__option_{letter}" for letter in "abcdefgh"[: MOST_COLUMNS + 1]]
    scored = [one(place, **dict.fromkeys(names, place)) for place in range(2)]
    _, table, lines = tables(scored, "Scores")
    assert rows(table)[0][-1].strip() == "human %"
    first, second = lines.splitlines()
    assert first.startswith("grid #1: agent.option_a = 0, agent.option_b = 0")
    assert second.endswith("agent.option_g = 1")
    head = rows(tables([one(place, **dict.fromkeys(names[1:], place)) for place in range(2)], "Scores")[1])[0]
    assert head[-1].strip() == "option_g"


def test_settings_of_other_names_are_not_told_apart() -> None:
    scored = [one(1.0, "a", agent__name=1), one(2.0, "b", agent__name=2)]
    assert [row[1].strip() for row in rows(tables(scored, "Scores")[1])[1:]] == ["b", "a"]
    assert rows(tables(scored, "Scores")[1])[0][-1].strip() == "human %"


def test_levels_of_dmlab_have_a_mean_of_their_own_in_which_none_counts_more_than_a_human() -> None:
    """Watermaze: random 4.065, human 54; keys and doors: 4.135 and 53.8."""
    scored = [
        one(103.935, environment="dmlab/rooms_watermaze"), one(54.0, environment="dmlab/rooms_watermaze"),
        one(28.9675, environment="dmlab/rooms_keys_doors_puzzle"), one(30.5, environment="Breakout"),
    ]  # fmt: skip
    _, by_environment, *others = tables(scored, "Scores")
    human = {row[2].strip(): row[-1].strip() for row in rows(by_environment)[1:]}
    assert human == {"Breakout": "100.0", "dmlab/rooms_watermaze": "150.0", "dmlab/rooms_keys_doors_puzzle": "50.0"}
    atari, games, title, levels = others
    assert atari == "Human-normalised scores over Atari games" and rows(games)[1][1].strip() == "1"
    assert title == "Human-normalised scores over levels of DMLab-30, at most 100 % each"
    assert [cell.strip() for cell in rows(levels)[1]] == ["grid", "2", "3", "75.0"]
    assert len(tables([one(1.0, environment="toy/catch")], "Scores")) == 2


def test_values_are_shown_as_a_reader_knows_them() -> None:
    assert [plain(value) for value in ('"lstm"', "0.001", "[64, 64]", "true", None)] == [
        "lstm", "0.001", "[64, 64]", "true", "-",
    ]  # fmt: skip
