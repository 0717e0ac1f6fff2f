"""The roles of a run and what connects them, as ``offbeat graph`` prints them."""

from __future__ import annotations

from offbeat.runtime.settings import Settings
from offbeat.runtime.topology import topology
from offbeat.types import ItemSpec


def describe(config: Settings, items: ItemSpec) -> str:
    """The topology as text."""
    graph = topology(config, items)
    mode = "lock-step" if config.deterministic else "free-running"
    engine = "inline, one thread, fixed rounds" if config.engine == "inline" else f"local processes, {mode}"
    lines = [f"engine     {engine}", "", "roles"]
    for role in graph.roles:
        where = ", ".join(dict.fromkeys(role.devices))
        lines.append(
            f"  {role.count:>3} x {role.kind:<10} {role.threads} torch thread(s) on {where:<10} {role.loop:<34} "
            f"{role.detail}"
        )
    lines += ["", "ports"]
    lines += [f"  {wire.source:>10} --> {wire.target:<10} {wire.port:<28} {wire.carries}" for wire in graph.wires]
    return "\n".join(lines)
