"""A row of the table, and how interleaved rounds become one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """``ratio`` is ours to theirs, the median over the rounds of the ratio within a round; None where there is none."""

    what: str
    ours: str
    theirs: str
    ratio: float | None = None
    note: str = ""


def interleave(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """A B C A B C ...: whatever else the machine does falls on all arms alike. Every other round runs backwards."""
    seen: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        names = list(arms) if number % 2 == 0 else list(arms)[::-1]
        for name in names:
            seen[name].append(arms[name]())
    return seen


def compare(what: str, ours: Sequence[float], theirs: Sequence[float], unit: str, note: str = "") -> Row:
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return Row(what, show(ours, unit), show(theirs, unit), ratio, note)


def show(values: Sequence[float], unit: str) -> str:
    middle = statistics.median(values)
    return f"{middle:,.0f} {unit}" if middle >= 100 else f"{middle:.2f} {unit}"
