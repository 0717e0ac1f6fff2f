"""``offbeat presets``, ``envs``, ``graph`` and ``doctor``: commands that only tell."""

from __future__ import annotations

import sys

from offbeat.commands.arguments import Parser, one_preset, scan
from offbeat.errors import UserError, nearest


def presets(arguments: list[str]) -> int:
    """Print each preset and what it is."""
    Parser("presets", "List the presets.").parse_args(arguments)
    from offbeat.config.presets import list_presets

    found = list_presets()
    width = max(map(len, found))
    for name, summary in found.items():
        print(f"{name:<{width}}  {summary}")
    return 0


def agents(arguments: list[str]) -> int:
    """Print each agent, the package that it comes from, and what it is; a line on stderr for one that is broken."""
    Parser("agents", "List the agents, those of installed packages too.").parse_args(arguments)
    from offbeat.agents.make import agent_source, list_agents

    rows = [("agent", "package", "")]
    for name in list_agents():
        try:
            rows.append((name, *agent_source(name)))
        except UserError as error:
            print(f"offbeat: warning: {' '.join(str(error).split())}", file=sys.stderr)
    widths = [max(len(line[i]) for line in rows) for i in range(2)]
    for name, package, said in rows:
        print(f"{name:<{widths[0]}}  {package:<{widths[1]}}  {said}".rstrip())
    return 0


def envs(arguments: list[str]) -> int:
    """Print the environments that can be used here."""
    if arguments[:1] == ["check"]:
        from offbeat.commands.checks import check_environment

        return check_environment(arguments[1:])
    parser = Parser("envs", "List the environments, with the number of actions; 'envs check NAME' tries one out.")
    parser.add_argument("text", nargs="?", default="", help="only those whose name holds this text")
    options = parser.parse_args(arguments)
    from offbeat.envs.listing import list_envs

    shown = [(env.id, env.actions or "-", env.kind, env.note) for env in list_envs(options.text)]
    if not shown:
        hint = nearest(options.text, [env.id for env in list_envs()])
        raise UserError(f"no environment with {options.text!r} in its name{hint}")
    rows = [("environment", "actions", "kind", ""), *shown]
    widths = [max(len(line[i]) for line in rows) for i in range(3)]
    for *cells, note in rows:
        print("  ".join([*(c.ljust(w) for c, w in zip(cells, widths, strict=True)), note]).rstrip())
    return 0


def graph(arguments: list[str]) -> int:
    """Print the roles of a preset and their wiring."""
    if "--help" in arguments or "-h" in arguments:
        print("usage: offbeat graph PRESET [--option value ...]\n\nPrint the roles of a run and what connects them.")
        return 0
    scanned = scan(arguments)
    config = scanned.config(one_preset(scanned, "graph"))
    from offbeat.agents.base import trains_on
    from offbeat.agents.make import make_agent
    from offbeat.config.auto import decide
    from offbeat.envs.planned import planned_spec
    from offbeat.runtime.topology_text import describe

    spec, missing = planned_spec(config.env)
    agent = make_agent(config.agent_name, config.agent, spec)
    print(describe(decide(config), trains_on(agent)))
    if missing:
        print(f"offbeat: warning: it cannot be trained here yet: {missing}", file=sys.stderr)
    return 0


def doctor(arguments: list[str]) -> int:
    """Print what this machine has."""
    Parser("doctor", "Say what this machine has and what 'auto' chooses on it.").parse_args(arguments)
    from offbeat.commands.doctor import report

    print(report())
    return 0
