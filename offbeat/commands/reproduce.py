"""The command ``reproduce``: a published row, played again on seeds that it has not seen."""

from __future__ import annotations

from pathlib import Path

from offbeat.commands.arguments import Parser


def reproduce(arguments: list[str]) -> int:
    """Run a row's campaign on fresh seeds and print a verdict; without a name list the rows.

    0 where it agrees, 1 where it differs or is not finished.
    """
    parser = Parser("reproduce", "Play a row of docs/results.md again, on seeds that it has not seen; resumable.")
    parser.add_argument("name", nargs="?", help="the row; without one all are listed")
    parser.add_argument("--runs", type=int, metavar="N", help="so many seeds; default: as many as are published")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="these; default: 1000, 1001, ...")
    parser.add_argument("--out", type=Path, help="folder of the runs; default: results/reproduce_NAME")
    parser.add_argument("--at-once", type=int, metavar="N", help="runs at a time; default: as many as the cores allow")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and how far they are; run nothing")
    options = parser.parse_args(arguments)
    from offbeat.scoring.reproduce import (
        all_rows,
        campaign_text,
        fresh_seeds,
        judge,
        row_named,
        scores_in,
        verdict_text,
    )

    if options.name is None:
        for row in all_rows().values():
            print(f"{row.name:<26} {row.task}; {row.preset}, {len(row.seeds)} runs of about {row.minutes:g} min")
        return 0
    if options.runs is not None and options.seeds is not None:
        parser.error("--runs says how many seeds and --seeds which; leave one out")
    from offbeat.report.campaign import write_report
    from offbeat.run.campaign import list_runs, run_campaign
    from offbeat.run.campaign_file import check_at_once, read_campaign
    from offbeat.run.provenance import describe_environment

    check_at_once("--at-once", options.at_once)
    row = row_named(options.name)
    seeds = fresh_seeds(row, options.runs, options.seeds)
    out = options.out or Path("results") / f"reproduce_{row.name}"
    out.mkdir(parents=True, exist_ok=True)
    file = out / "campaign.toml"
    file.write_text(campaign_text(row, seeds, out), encoding="utf-8")
    if options.dry_run:
        print(list_runs(read_campaign(file), options.at_once))
        return 0
    failed = run_campaign(file, write_report, at_once=options.at_once)
    scores = scores_in(file)
    if failed or len(scores) < len(seeds):
        print(f"{row.name}: {len(scores)} of {len(seeds)} runs have their score, so there is no verdict yet; "
              "the same command goes on")  # fmt: skip
        return 1
    verdict, environment = judge(row, scores), describe_environment(seed=seeds[0])
    verdict.write(out / "verdict.json", environment)
    print(verdict_text(row, verdict, environment))
    return 0 if verdict.agrees else 1
