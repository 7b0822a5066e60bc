"""The order in which services start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

from deploykit.spec.model import Dependency


def levels(dependencies: Mapping[str, Mapping[str, Dependency]], chosen: Iterable[str]) -> list[list[str]]:
    """Services in groups: each group needs only earlier ones. ``chosen`` bring what they depend on.

    Raises graphlib.CycleError for a cycle (the loader refuses one earlier, with its place).
    """
    wanted: set[str] = set()
    todo = list(chosen)
    while todo:
        name = todo.pop()
        if name in wanted or name not in dependencies:
            continue
        wanted.add(name)
        todo += dependencies[name]
    sorter = TopologicalSorter({n: set(dependencies[n]) & wanted for n in sorted(wanted)})
    sorter.prepare()
    groups = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        groups.append(ready)
        sorter.done(*ready)
    return groups
