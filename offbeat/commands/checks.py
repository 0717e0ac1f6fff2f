"""``offbeat bench`` and ``envs check``: commands that measure or try out something on this machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from offbeat.commands.arguments import Scanned, env_factory, number, one_preset, result_file, scan
from offbeat.config.run_config import RunConfig
from offbeat.errors import UserError, nearest

BENCH = """usage: offbeat bench throughput [PRESET] [--seconds N] [--rounds N] [--cores N] [--json FILE]
                                [--option value ...]
       offbeat bench actor [PRESET] [--envs 16,64,256] [--seconds N] [--json FILE] [--option value ...]
       offbeat bench streams
       offbeat bench samplers [--seconds N] [--json FILE]
       offbeat bench replay [--cpprb VENV] [--torchrl VENV] [--transitions N] [--threads N]
                            [--seconds N] [--rounds N] [--json FILE]
       offbeat bench soak [PRESET] [--minutes N] [--json FILE] [--option value ...]
       offbeat bench peers [--sb3 VENV] [--sample-factory VENV] [--rllib VENV]
                           [--task atari|atari-deep|atari-dqn|cartpole|minatar] [--game NAME] [--preset PRESET]
                           [--seconds N] [--rounds N] [--json FILE] [--option value ...]
       offbeat bench realtime [PRESET] [--processes 1,2,4,8] [--minutes N] [--json FILE] [--option value ...]
       offbeat bench rtrl [PRESET] [--seconds N] [--json FILE] [--option value ...]
       offbeat bench gpu [PRESET ...] [--minutes N] [--out FILE] [--json FILE] [--device NAME] [--option value ...]

throughput: frames/s of a preset (impala-atari) end to end, beside its parts alone and the limit that they set.
actor:      calls and processor time of a round of an actor (impala-cartpole), by part and number of environments.
streams:    rows/s and bytes/s of appending and of assembling batches, beside a plain copy of memory.
replay:     a full prioritised replay memory of Atari frames: appending, drawing, assembling, memory; beside others.
samplers:   a batch of each sampler of unrolls, with and without cached scores, beside uniform replay of the same rows.
soak:       memory of all processes of a long run (15 minutes), and how much it grows after the first two.
peers:      frames/s of other libraries, each from its own virtual environment, and of offbeat, interleaved.
realtime:   missed frames, spacing and overhead of an environment that never waits (realtime-dqn, 59.73 frames/s, 10
            minutes for each number of inference processes), beside this machine's own wake-ups and manager proxies.
rtrl:       what exact gradients cost: R2AC's core alone (N = 512) and updates of a preset (r2ac-atari-qbert, batches of
            4), by RTRL beside the same truncated, in turns.
gpu:        frames/s of presets on a GPU and how busy it is, acting on it or on the processor; within --minutes (8).
            Without a GPU it says so; --device cpu rehearses it."""

CHECK = """usage: offbeat envs check NAME [--steps N] [--seconds N] [--env.max-steps N] [--env.option value ...]

Whether an environment can be trained on: plays it for some hundred random steps as a run would, and says what its
spaces become, which agents can take it, how it behaves, what is wrong with it and how to mend that. This happens in a
process of its own, which it may hang in or end. NAME is an id, or module:function of your own.
Exit code: 0 without errors, 1 where something is wrong that a run would fail by, 2 where there is none of that name."""


def bench(arguments: list[str]) -> int:
    """Measure throughput, the streams, replay, memory over time, other libraries, realtime, or a GPU."""
    what, rest = choose(
        "bench",
        arguments,
        ("throughput", "actor", "streams", "replay", "samplers", "soak", "peers", "realtime", "rtrl", "gpu"),
        BENCH,
    )
    if what == "throughput":
        from offbeat.bench.throughput import bench_throughput

        scanned = scan(rest, own=("seconds", "rounds", "cores", "json"))
        seconds, rounds = number(scanned, "seconds", 20), round(number(scanned, "rounds", 3))
        cores = round(number(scanned, "cores", 0))
        bench_throughput(
            _config(scanned, what), seconds=seconds, rounds=max(1, rounds), cores=cores, file=result_file(scanned)
        )
    if what == "actor":
        _bench_actor(rest)
    if what == "soak":
        from offbeat.bench.soak import bench_soak

        scanned = scan(rest, own=("minutes", "json"))
        bench_soak(_config(scanned, what), minutes=number(scanned, "minutes", 15), file=result_file(scanned))
    if what == "streams":
        from offbeat.bench.streams import bench_streams

        _print_streams(bench_streams())
    if what == "replay":
        _bench_replay(rest)
    if what == "samplers":
        from offbeat.bench.samplers import bench_samplers

        scanned = scan(rest, own=("seconds", "json"))
        bench_samplers(seconds=number(scanned, "seconds", 20), file=result_file(scanned))
    if what == "peers":
        _bench_peers(rest)
    if what == "realtime":
        _bench_realtime(rest)
    if what == "rtrl":
        _bench_rtrl(rest)
    return _bench_gpu(rest) if what == "gpu" else 0


def _bench_gpu(arguments: list[str]) -> int:
    """Run ``bench gpu``; 1 where a run failed."""
    from offbeat.bench.gpu import PRESETS, bench_gpu

    scanned = scan(arguments, own=("minutes", "out", "json", "device"))
    rows = bench_gpu(
        scanned.positional or PRESETS,
        device=scanned.own.get("device", "cuda"),
        minutes=number(scanned, "minutes", 8),
        options=scanned.options,
        out=Path(scanned.own["out"]) if "out" in scanned.own else None,
        file=result_file(scanned),
    )
    return int(any(row.run is None for row in rows))


def _bench_actor(arguments: list[str]) -> None:
    """Check the options of ``bench actor`` and run it."""
    from offbeat.bench.actor import bench_actor

    scanned = scan(arguments, own=("envs", "seconds", "json"))
    counts = _numbers(scanned, "envs", "16,64,256")
    named = one_preset(scanned, "bench actor") if scanned.positional else "impala-cartpole"
    bench_actor(
        scanned.config(named), counts=tuple(counts), seconds=number(scanned, "seconds", 4), file=result_file(scanned)
    )


def _numbers(scanned: Scanned, name: str, otherwise: str) -> list[int]:
    """The whole numbers above 0 of an option that lists them with commas."""
    text = scanned.own.get(name, otherwise)
    counts = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if not counts or min(counts) < 1 or len(counts) != len(text.split(",")):
        raise UserError(f"--{name}={text!r} is not a list of numbers of at least 1, such as {otherwise}")
    return counts


def _bench_realtime(arguments: list[str]) -> None:
    """Check the options of ``bench realtime`` and run it."""
    from offbeat.bench.realtime import bench_realtime

    scanned = scan(arguments, own=("processes", "minutes", "json"))
    counts = _numbers(scanned, "processes", "1,2,4,8")
    named = one_preset(scanned, "bench realtime") if scanned.positional else "realtime-dqn"
    bench_realtime(scanned.config(named), counts, number(scanned, "minutes", 10), result_file(scanned))


def _bench_rtrl(arguments: list[str]) -> None:
    """Check the options of ``bench rtrl`` and run it."""
    from offbeat.bench.rtrl_cost import bench_rtrl

    scanned = scan(arguments, own=("seconds", "json"))
    if not scanned.positional:
        scanned.options.insert(0, ("learner.batch_size", "4"))  # what two cores do in a second
    named = one_preset(scanned, "bench rtrl") if scanned.positional else "r2ac-atari-qbert"
    bench_rtrl(scanned.config(named), seconds=number(scanned, "seconds", 20), file=result_file(scanned))


def _bench_replay(arguments: list[str]) -> None:
    """Check the options of ``bench replay`` and run it."""
    from offbeat.bench.replay import PEERS, bench_replay

    scanned = scan(arguments, own=(*PEERS, "transitions", "threads", "seconds", "rounds", "json"))
    for other in (*scanned.positional, *(f"--{name}" for name, _ in scanned.options)):
        raise UserError(f"'offbeat bench replay' takes only its own options, got {other!r}; 'offbeat bench --help'")
    bench_replay(
        {peer: scanned.own[peer] for peer in PEERS if peer in scanned.own},
        transitions=round(number(scanned, "transitions", 1_000_000)),
        threads=round(number(scanned, "threads", 0)),
        seconds=number(scanned, "seconds", 5),
        rounds=max(1, round(number(scanned, "rounds", 3))),
        file=result_file(scanned),
    )


def _bench_peers(arguments: list[str]) -> None:
    """Check the options of ``bench peers`` and run it."""
    from offbeat.bench.peers.catalogue import PEERS, make_plan
    from offbeat.bench.peers.report import bench_peers

    scanned = scan(arguments, own=(*PEERS, "task", "game", "preset", "seconds", "rounds", "json"))
    if scanned.positional:
        raise UserError(f"'offbeat bench peers' takes only options, got {scanned.positional[0]!r}; --preset names one")
    own = scanned.own
    plan = make_plan(
        {peer: own[peer] for peer in PEERS if peer in own},
        task=own.get("task", "atari"),
        game=own.get("game", ""),
        preset=own.get("preset", ""),
        options=scanned.options,
    )
    seconds, rounds = number(scanned, "seconds", 30), max(1, round(number(scanned, "rounds", 3)))
    bench_peers(plan, seconds=seconds, rounds=rounds, file=result_file(scanned))


def check_environment(arguments: list[str]) -> int:
    """Try an environment out; 1 where it has errors."""
    if "--help" in arguments or "-h" in arguments:
        print(CHECK)
        return 0
    scanned = scan(arguments, own=("steps", "seconds"))
    if len(scanned.positional) != 1:
        raise UserError(f"'offbeat envs check' takes one environment, got {len(scanned.positional)}; --help says more")
    if other := [name for name, _ in scanned.options if not name.startswith("env.") or name == "env.id"]:
        raise UserError(f"'offbeat envs check' takes options of env.* only, such as --env.max-steps, got --{other[0]}")
    (name,) = scanned.positional
    values: dict[str, Any] = {key.removeprefix("env."): value for key, value in scanned.options}
    values |= {"steps": max(1, round(number(scanned, "steps", 300))), "seconds": number(scanned, "seconds", 10)}
    from offbeat.acting.env_apart import apart

    well, text = apart(partial(_checked, name, values))
    print(text)
    return 0 if well else 1


def _checked(name: str, values: dict[str, Any]) -> tuple[bool, str]:
    """Whether an environment has no errors, and the report; the environment's own module is imported here."""
    from offbeat.api import check_env

    factory = env_factory(name, "envs check")
    report = check_env(name if factory is None else factory, **values)
    return report.ok, str(report)


def _print_streams(rates: dict[str, float]) -> None:
    """Print what ``bench_streams`` measured."""
    print(f"{'':<10}{'rows/s':>14}{'GB/s':>8}{'memcpy GB/s':>13}{'of memcpy':>11}")
    for name in ("append", "assemble"):
        written, copied = rates[f"{name}_bytes_per_s"] / 1e9, rates[f"{name}_memcpy_bytes_per_s"] / 1e9
        print(
            f"{name:<10}{rates[f'{name}_rows_per_s']:>14,.0f}{written:>8.2f}{copied:>13.2f}{rates[f'{name}_of_memcpy']:>11.0%}"
        )


def _config(scanned: Scanned, what: str) -> RunConfig:
    """The preset that a benchmark runs, impala-atari where none is named, with its options."""
    return scanned.config(one_preset(scanned, f"bench {what}") if scanned.positional else "impala-atari")


def choose(command: str, arguments: list[str], known: tuple[str, ...], text: str) -> tuple[str | None, list[str]]:
    """The first argument, one of ``known``, and the rest; None where help was asked for."""
    if "--help" in arguments or "-h" in arguments:
        print(text)
        return None, []
    if not arguments or arguments[0] not in known:
        got = repr(arguments[0]) + nearest(arguments[0], known) if arguments else "nothing"
        raise UserError(f"'offbeat {command}' needs one of: {', '.join(known)}; got {got}")
    return arguments[0], arguments[1:]


def count(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--kills={text!r} is not a whole number of at least 1")
    return int(text)
