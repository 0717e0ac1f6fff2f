"""The cards of the page of ``offbeat report`` about the run itself: options, speed, time line, books, machine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from offbeat.config.options import FOLLOWERS
from offbeat.config.presets import list_presets
from offbeat.config.run_config import from_dict, load_preset, to_dict
from offbeat.errors import UserError
from offbeat.report.page_facts import Facts
from offbeat.report.page_html import Html, card, folded, joined, name_of, note, number, share, side_by_side, table, tag
from offbeat.report.page_parts import Column
from offbeat.report.svg import Series, Share, bar, chart, legend, spans, swatch
from offbeat.report.trace import DRAWN_NS, OTHER, SPAN_COLOURS, WAITING, Lane, segments, shares
from offbeat.scoring.compare import flat_options
from offbeat.scoring.ranking import plain

NOT_OPTIONS = ("preset", "out", "seed")
"""What config.toml holds beside what is compared; the seed stands at the top of the page."""
WORKED = {
    "env_s": ("environments", "#0072B2"), "forward_s": ("choosing actions", "#D55E00"),
    "train_s": ("training", "#CC79A7"), "wait_s": ("waiting", WAITING),
}  # fmt: skip
"""Seconds that roles report -> what they went into, and its colour."""
MOST_LANES, MOST_LINES = 24, 40
"""Threads of a time line and lines of a log that are shown at once."""
BOOKS = ("stored", "expired", "lost", "in_hand")
"""What became of the rows that were produced; these add up to them."""
FIFO_BOOKS = ("trained", "pending", "skipped", "lost")
"""The same in the books of a fifo."""


def options(runs: Sequence[Column]) -> Html:
    """Options that differ from the preset or between the runs; all others when asked for.

    An option that a run does not have, as it is of another version or agent, differs from nothing.
    """
    lost = [note(f"{one.name}: its options are not known.") for one in runs if not one.facts.config]
    runs = [one for one in runs if one.facts.config]
    own = [flat_options("", one.facts.config) for one in runs]
    known = [_preset(one.facts) for one in runs]
    names = [name for name in dict.fromkeys(name for one in own for name in one) if name not in NOT_OPTIONS]
    rows, others = [], []
    for name in names:
        values = [one.get(name) for one in own]
        usual = [options.get(name) for options, _ in known]
        differs = len({*values} - {None}) > 1 or any(a != b for a, b in zip(values, usual) if a and b)
        if not differs or _follows(name, own, [options for options, _ in known]):
            others.append((name_of(name), [plain(value) for value in values]))
            continue
        rows.append((name_of(name), [_value(a, b) for a, b in zip(values, usual)]))
    heads = [one.head for one in runs]
    said = [note(text) for text in dict.fromkeys(text for _, text in known if text)]
    if rows:
        said.append(side_by_side(heads, rows, "options that differ"))
    elif runs:
        said.append(note("None: every option is the preset's."))
    every = folded(
        f"The other {len(others)} options", side_by_side(heads, others, "all other options"), id="all-options"
    )
    title = "Options that differ from the preset" + (" or between runs" if len(runs) > 1 else "")
    return card(title, *lost, *said, every if others else None, id="options")


def _preset(facts: Facts) -> tuple[dict[str, str], str]:
    """(the options of a run's preset, what to say of them): of an unknown one the defaults of the agent."""
    preset, agent = facts.config.get("preset"), facts.config.get("agent")
    try:
        if isinstance(preset, str) and preset in list_presets():
            return flat_options("", to_dict(load_preset(preset))), ""
        name = agent.get("name") if isinstance(agent, dict) else None
        found = flat_options("", to_dict(from_dict({"agent": {"name": name}}))) if name else {}
        said = f"preset {preset!r} does not come with this version" if preset else "the run has no preset"
        return found, f"{facts.run.name}: {said}; its options are compared with the defaults."
    except UserError as error:
        return {}, f"{facts.run.name}: its options cannot be compared: {error}."


def _follows(name: str, own: Sequence[dict[str, str]], usual: Sequence[dict[str, str]]) -> bool:
    """Whether an option of environments is what the ones that they follow have, in every run and preset."""
    section, _, rest = name.partition(".")
    leader = FOLLOWERS.get(section)
    return leader is not None and all(one.get(name) == one.get(f"{leader}.{rest}") for one in (*own, *usual))


def _value(value: str | None, usual: str | None) -> Html:
    """An option in a cell, with the preset's below where that is another."""
    if value is None or usual is None or value == usual:
        return joined([plain(value)])
    left_open = "auto" in usual
    small = tag("small", " from auto") if left_open else tag("small", " preset: ", plain(usual))
    return tag("span", tag("b", plain(value)), small, class_="auto" if left_open else "own")


def speed(runs: Sequence[Column]) -> Html:
    """How fast, and where the time went."""
    several = [one.facts for one in runs]
    rows = [
        (
            "frames per second, all of the run",
            [number(f.frames / f.seconds if f.seconds else None, 5) for f in several],
        ),
        ("actors, newest period", [number(facts.last("actor_frames_per_s"), 5) for facts in several]),
        ("learner, newest period", [number(facts.last("learner_frames_per_s"), 5) for facts in several]),
        ("learner waits for batches", [share(_waited(facts, "train_s")) for facts in several]),
        ("actors wait for room", [share(_waited(facts, "env_s")) for facts in several]),
        ("policy lag (updates)", [number(facts.last("policy_lag")) for facts in several]),
    ]
    parts = [side_by_side([one.head for one in runs], rows, "speed")]
    series = []
    for one in runs:
        x = one.facts.progress.get("seconds", np.empty(0)) / 60
        for column, kind, who in (
            ("learner_frames_per_s", "thin", "learner"),
            ("actor_frames_per_s", "line", "actors"),
        ):
            y = one.facts.progress.get(column)
            if y is not None and len(y) == len(x):
                name = f"{one.name}, {who}" if len(runs) > 1 else who
                series.append(Series(name, one.colour, x, y, "line" if kind == "line" else "thin"))
    if any(np.isfinite(one.y).sum() > 1 for one in series):
        parts.append(chart(series, "wall time (minutes)", "frames per second", "speed over wall time", from_zero=True))
        parts.append(note("Thick: what actors gather. Thin: what is trained on, with replay each frame several times."))
    parts += [part for one in runs for part in _where(one, len(runs))]
    return card("Speed, and where the time goes", *parts, id="speed")


def _waited(facts: Facts, work: str) -> float | None:
    """Share of the time that roles which do ``work`` waited, over the whole run; None where none reports it."""
    found = [spent for spent in facts.spent.values() if work in spent]
    total = sum(sum(spent.values()) for spent in found)
    return sum(spent.get("wait_s", 0.0) for spent in found) / total if total else None


def _where(one: Column, of: int) -> list[Html]:
    """Bars of the roles of a run, all actors as one, and its recorded time line."""
    kinds: dict[str, dict[str, float]] = {}
    count: dict[str, int] = {}
    for role, spent in one.facts.spent.items():
        kind = role.rpartition("-")[0] if role.rpartition("-")[2].isdecimal() else role
        count[kind] = count.get(kind, 0) + 1
        for name, seconds in spent.items():
            kinds.setdefault(kind, {})[name] = kinds.get(kind, {}).get(name, 0.0) + seconds
    bars: list[Html] = []
    for kind, spent in kinds.items():
        total = sum(spent.values())
        if total:
            parts = [Share(WORKED[name][0], spent[name] / total, WORKED[name][1]) for name in WORKED if name in spent]
            told = ", ".join(f"{part.name} {part.share:.0%}" for part in parts)
            who = f"{count[kind]} {kind}s" if count[kind] > 1 else kind
            bars += [tag("p", tag("b", who), f" {told}", class_="lane"), bar(parts, f"{who}: {told}")]
    if bars:
        used = {name for spent in kinds.values() for name in spent}
        bars.append(legend([(swatch(colour), text) for name, (text, colour) in WORKED.items() if name in used]))
    bars += _time_line(one.facts.lanes)
    head = tag("h3", one.head if of > 1 else "Where the time goes")
    return [head, *bars] if bars else []


def _time_line(lanes: Sequence[Lane]) -> list[Html]:
    """The middle of what was recorded, a row for each thread, and the shares of all of it as a table."""
    if not lanes:
        return []
    first, last = min(lane.begin for lane in lanes), max(lane.end for lane in lanes)
    begin = max(first, (first + last - DRAWN_NS) // 2)
    end = min(last, begin + DRAWN_NS)
    parts = [tag("h3", f"Time line: {(end - begin) / 1e6:.0f} of {(last - first) / 1e6:.0f} ms recorded")]
    seen: set[str] = set()
    for lane in lanes[:MOST_LANES]:
        cut = segments(lane, begin, end)
        found = []
        for place in np.unique(cut["name"]):
            name = lane.names[place] if place < len(lane.names) else OTHER
            seen.add(name)
            found.append((SPAN_COLOURS.get(name, WAITING), cut[cut["name"] == place]))
        parts += [tag("p", lane.label, class_="lane"), spans(begin, end, found, f"time line of {lane.label}")]
    entries = [(swatch(colour), name) for name, colour in SPAN_COLOURS.items() if name in seen]
    entries += [(swatch(WAITING), "waiting")] if seen - SPAN_COLOURS.keys() else []
    parts.append(legend(entries))
    rows = [
        (lane.label, row.name, number(row.calls), share(row.share))
        for lane in lanes
        for row in shares(lane)
        if row.share >= 0.0005
    ]
    parts.append(
        folded("Shares of all that was recorded", table(("thread", "span", "calls", "share"), rows), id="spans")
    )
    if len(lanes) > MOST_LANES:
        parts.append(note(f"{len(lanes) - MOST_LANES} more threads are in 'offbeat trace'."))
    return parts


def books(runs: Sequence[Column]) -> Html:
    """What became of every row, and what went wrong."""
    several = [one.facts for one in runs]
    learners = [_newest(facts, "learner") for facts in several]
    rows: list[tuple[object, list[Html]]] = [
        ("roles that were replaced", [number(len(facts.records.get("restart", []))) for facts in several]),
        ("updates left out (not finite)", [number(one.get("skipped")) for one in learners]),
        ("unrolls or items overwritten before they were read", [number(_dropped(one)) for one in learners]),
        ("unrolls too old to train on", [number(one.get("skipped_unrolls")) for one in learners]),
        ("lines of run.log worth a look", [number(len(facts.trouble)) for facts in several]),
    ]
    ledgers = [(facts.records.get("ledger") or [{}])[-1] for facts in several]
    names = [name for name in dict.fromkeys(n for one in ledgers for n in one) if name not in COUNTED]
    for name in names:
        rows.append((joined(["rows ", name_of(name)]), [number(one.get(name)) for one in ledgers]))
    if any(ledgers):
        rows.append(("the books close", [_closes(one) for one in ledgers]))
    parts: list[Html | None] = [side_by_side([one.head for one in runs], rows, "ledger and faults")]
    if not all(ledgers):
        parts.append(note("The ledger is written when a run ends."))
    for place, one in enumerate(runs):
        trouble = one.facts.trouble
        who = [one.head, ": "] if len(runs) > 1 else []
        if trouble:
            said = joined([*who, f"lines of run.log worth a look: {len(trouble)}"])
            lines = tag("pre", "\n".join(trouble[-MOST_LINES:]))
            parts.append(folded(said, lines, open=len(runs) == 1, id=f"trouble-{place}"))
        if one.facts.log:
            last = one.facts.log[-MOST_LINES:]
            parts.append(folded(joined([*who, "the end of run.log"]), tag("pre", "\n".join(last)), id=f"log-{place}"))
    return card("Books and faults", *parts, id="books")


def _dropped(record: dict[str, Any]) -> Any:
    """What a learner's samplers lost to writers: unrolls or items, as they draw."""
    return record.get("dropped_unrolls", record.get("dropped_items"))


COUNTED = ("time", "role", "kind", "frames", "agent_steps")
"""What every record has."""


def _newest(facts: Facts, kind: str) -> dict[str, Any]:
    """The newest record of the roles of a kind."""
    return next((one for role, one in reversed(facts.newest.items()) if role.split("-")[0] == kind), {})


def _closes(ledger: dict[str, Any]) -> Html:
    """Whether what was produced is what became of it, as docs/metrics.md has it."""
    if "produced" not in ledger:
        return number(None)
    sums: list[tuple[str, ...]] = [BOOKS]
    fifos = dict.fromkeys(name.partition("/")[0] for name in ledger if "/" in name)
    sums += [tuple(f"{fifo}/{name}" for name in FIFO_BOOKS) for fifo in fifos]
    off = [names for names in sums if sum(ledger.get(name, 0) for name in names) != ledger["produced"]]
    return tag("b", "no: ", ", ".join(" + ".join(names) for names in off), class_="bad") if off else joined(["yes"])


def realtime(runs: Sequence[Column]) -> Html | None:
    """What runs in which the environment never waits have counted; None where there is none."""
    found = [one.facts.realtime for one in runs]
    if not any(found):
        return None
    rows: list[tuple[object, list[Html]]] = []
    for name, label in (("fps", "frames per second"), ("frames", "frames"), ("missed", "frames missed"),
                        ("decisions", "actions that acted"), ("lost", "actions lost"),
                        ("inference_processes", "inference processes")):  # fmt: skip
        rows.append((label, [number(one.get(name)) for one in found]))
    rows.append(("frames left to the default behaviour", [share(one.get("inaction_share")) for one in found]))
    for name in ("mean", "p99", "max"):
        rows.append((f"staleness, {name} (frames)", [number(one.get("staleness", {}).get(name)) for one in found]))
    for key, label in (("inference", "inference"), ("to_acted", "observation to the frame in which it acted")):
        for name in ("p50", "p99"):
            taken = [one.get("latency_s", {}).get(key, {}).get(name) for one in found]
            cells = [number(None if value is None else 1e3 * value) for value in taken]
            rows.append((f"{label}, {name} (ms)", cells))
    return card("Realtime", side_by_side([one.head for one in runs], rows, "realtime"), id="realtime")


def machine(runs: Sequence[Column]) -> Html:
    """Where, with what, and by which command."""
    found = [one.facts.environment for one in runs]
    machines = [one["machine"] if isinstance(one.get("machine"), dict) else {} for one in found]
    versions = [one["versions"] if isinstance(one.get("versions"), dict) else {} for one in found]
    rows: list[tuple[object, list[Html]]] = [("run", [_plain(str(one.facts.run.absolute())) for one in runs])]
    for name in _union(machines):
        rows.append((name.replace("_gib", " (GiB)").replace("_", " "), [_plain(one.get(name)) for one in machines]))
    rows += [(name, [_plain(one.get(name)) for one in found]) for name in ("started", "folder", "python", "commit")]
    rows.append(("resumed", [number(len(_list(one.get("resumed")))) for one in found]))
    rows += [(name, [_plain(one.get(name)) for one in versions]) for name in _union(versions)]
    rows.append(("command", [_command(one.get("command")) for one in found]))
    return card("Machine and versions", side_by_side([one.head for one in runs], rows, "machine"), id="machine")


def _union(several: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(name) for one in several for name in one))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _plain(value: object) -> Html:
    """What environment.json holds under a name."""
    if value is None or value == []:
        return number(None)
    if isinstance(value, list):
        return joined([", ".join(str(item) for item in value)])
    return joined([value if isinstance(value, str) else json.dumps(value)])


def _command(words: object) -> Html:
    if not isinstance(words, list):
        return number(None)
    return tag("code", " ".join(shlex.quote(str(word)) for word in words))
