"""``offbeat verify``: proofs on this machine, of a resume and of scores."""

from __future__ import annotations

from offbeat.commands.arguments import Parser, add_env, one_preset, own_of, scan
from offbeat.commands.checks import choose, count

VERIFY = """usage: offbeat verify resume PRESET [--kills N] [--option value ...]
       offbeat verify score RUN|TRACE|FOLDER ... [--env MODULE:NAME]

resume: trains in deterministic mode, kills the run at random moments, resumes it each time, and compares its end bit
        for bit with that of a run never killed.
score:  plays action traces again, files or those of a run or a folder, and compares every reward and score bit for bit.
        'offbeat eval RUN --trace-actions' leaves a trace, a run with --evaluation.trace-actions one for each
        evaluation. Traces in a run's folder must also fit its options, its weights and its scores."""


def verify(arguments: list[str]) -> int:
    """Prove that a resumed run equals one never killed, or that games end with the scores that are given for them."""
    what, rest = choose("verify", arguments, ("resume", "score"), VERIFY)
    if what is None:
        return 0
    return _score(rest) if what == "score" else _resume(rest)


def _resume(arguments: list[str]) -> int:
    """0 where both runs were equal."""
    scanned = scan(arguments, own=("kills",))
    config = scanned.config(one_preset(scanned, "verify resume"))
    kills = count(scanned.own.get("kills", "10"))
    from offbeat.run.verify import verify_resume

    return 0 if verify_resume(config, kills=kills) else 1


def _score(arguments: list[str]) -> int:
    """0 where all traces were equal."""
    parser = Parser("verify score", "Play action traces again and compare every reward and score.")
    parser.add_argument("traces", nargs="+", metavar="RUN|TRACE|FOLDER", help="traces, runs, or folders of traces")
    add_env(parser)
    options = parser.parse_args(arguments)
    from offbeat.scoring.trace_rows import verify_scores

    return 0 if verify_scores(options.traces, own_of(options)["env_factory"]) else 1
