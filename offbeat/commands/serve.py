"""``offbeat serve``: a run's policy for other processes."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from offbeat.commands.arguments import Parser, add_env, own_of
from offbeat.errors import UserError
from offbeat.run.folders import find_run

ENDS = (signal.SIGINT, signal.SIGTERM)
"""What ends it."""


def serve(arguments: list[str]) -> int:
    """Serve until Ctrl-C."""
    options = _parser().parse_args(arguments)
    if options.write_client is not None:
        return _write_client(options.write_client)
    if options.run is None:
        raise UserError("'offbeat serve' needs a run: a run folder, or a folder of runs (the newest is taken)")
    if options.threads < 1:
        raise UserError(f"--threads={options.threads} is out of range; it must be at least 1")
    if options.tcp is None and (options.token_file or options.remote):
        raise UserError("--token-file and --remote go with --tcp HOST:PORT only; a Unix socket needs no token")
    from offbeat.serving.listening import read_token

    run, own = find_run(options.run), own_of(options)
    token = read_token(options.token_file) if options.tcp is not None else ""
    import torch

    from offbeat.serving.start import open_server

    torch.set_num_threads(options.threads)
    server, names = open_server(
        run, path=options.socket, tcp=options.tcp, token=token, remote=options.remote, clients=options.clients,
        policy=options.policy, seed=options.seed, device=options.device, checkpoint=options.checkpoint,
        say=_note if options.verbose else lambda line: None, **own,
    )  # fmt: skip

    def end(number: int, frame: FrameType | None) -> None:
        server.stop()

    before = {number: signal.signal(number, end) for number in ENDS}
    try:
        if options.remote:
            _note("warning: other machines can reach this, and neither token nor observations are encrypted")
        about = server.policy.about
        print(
            f"{about['agent']} of {run}, {about['policy']}, weights {about['weights'][:16]} of {about['agent_steps']} "
            f"agent steps, at {' and '.join(names)}",
            flush=True,
        )
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print(f"{server.answered} actions, {server.refused} errors", flush=True)
    return 0


def _parser() -> Parser:
    parser = Parser("serve", "Serve a run's newest weights to other processes, until Ctrl-C; docs/serve.md.")
    parser.add_argument("run", nargs="?", help="run folder, or a folder of runs (the newest is taken)")
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="Unix socket, for this user alone; default: RUN/serve.sock"
    )
    parser.add_argument("--tcp", metavar="HOST:PORT", help="listen here (too, where --socket is given); needs a token")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="what clients by TCP must know; else OFFBEAT_SERVE_TOKEN"
    )
    parser.add_argument("--remote", action="store_true", help="other machines may reach --tcp, unencrypted")
    parser.add_argument(
        "--policy", choices=("greedy", "sampled"), help="best action, or drawn ones; default: as the run's evaluation"
    )
    parser.add_argument("--greedy", action="store_const", const="greedy", dest="policy", help="short for that policy")
    parser.add_argument("--seed", type=int, default=0, help="of drawn actions; default: 0")
    parser.add_argument("--device", default="cpu", help="where the network computes: cpu, cuda, cuda:1; default: cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for one forward; default: 1")
    parser.add_argument("--clients", type=int, default=16, help="at most, each with a state of its own; default: 16")
    parser.add_argument("--verbose", action="store_true", help="a line for each who comes, goes or is refused")
    parser.add_argument("--write-client", type=Path, metavar="FILE", help="write the client, one file, and end")
    told = "other weights than the newest: best (of all validations), extra, or a checkpoint's agent steps"
    parser.add_argument("--checkpoint", metavar="WHICH", help=told)
    add_env(parser)
    return parser


def _write_client(file: Path) -> int:
    """Write the file that clients need. UserError where that is not possible."""
    import offbeat.serving.client as client

    try:
        with open(file, "x") as opened:
            opened.write(Path(client.__file__).read_text())
    except OSError as error:
        raise UserError(f"--write-client {file} cannot be written: {error.strerror}") from error
    print(file)
    return 0


def _note(line: str) -> None:
    print(f"offbeat: {line}", file=sys.stderr, flush=True)
