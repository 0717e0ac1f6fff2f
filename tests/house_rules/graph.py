"""Who imports whom: the layers of the library, and circles."""

from __future__ import annotations

from tests.house_rules.source import Module, imports

LAYERS = (
    {"types", "errors"},
    {"algorithms"},
    {"networks"},
    {"agents"},
    {"replay", "envs", "storage"},
    {"acting"},
    {"runtime"},
    {"config"},
    {"run"},
    {"scoring"},
    {"serving"},
    {"report"},
    {"bench"},
    {"api"},
    {"commands"},
    {"", "cli"},
    {"__main__"},
)
"""Packages and modules of offbeat, from the lowest to the highest; '' is the package itself. Each may import what is in
lower layers, types included, and no other of its own layer."""
LESS = {
    "algorithms": set[str](),
    "replay": {"types", "errors", "algorithms"},
    "envs": {"types", "errors"},
    "storage": {"errors"},
}
"""What may import less than its layer allows."""
TOGETHER = {"types", "errors"}
"""Modules of one layer that may import each other."""


def part(name: str) -> str:
    """``offbeat.replay.streams`` -> ``replay``; the package itself -> ''."""
    return name.split(".")[1] if "." in name else ""


def allowed(source: str) -> set[str]:
    """What a part of offbeat may import of it."""
    if source in TOGETHER:
        return TOGETHER
    lower: set[str] = set()
    for layer in LAYERS:
        if source in layer:
            return LESS.get(source, lower) | {source}
        lower |= layer
    raise KeyError(f"{source!r} has no layer; give it one in LAYERS")


def wrong_imports(modules: tuple[Module, ...]) -> list[str]:
    """Imports of offbeat by offbeat that point the wrong way."""
    wrong = []
    for module in modules:
        source = part(module.name)
        for line, name in imports(module):
            if name.startswith("offbeat.") and part(name) not in allowed(source):
                wrong.append(f"{module.path}:{line}: {source} imports {part(name)} ({name})")
    return wrong


def circles(modules: tuple[Module, ...]) -> list[list[str]]:
    """Files that import each other in a circle, also for types only, or only when they are called."""
    modules = tuple(module for module in modules if not module.path.endswith("__init__.py"))
    names = {module.name for module in modules}
    graph: dict[str, set[str]] = {}
    for module in modules:
        targets = {name if name in names else name.rpartition(".")[0] for _, name in imports(module)}
        graph[module.name] = (targets & names) - {module.name}
    reach = {name: _reachable(graph, name) for name in graph}
    found = {frozenset({other for other in reach[name] if name in reach[other]}) for name in graph}
    return sorted(sorted(circle) for circle in found if circle)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    return seen
