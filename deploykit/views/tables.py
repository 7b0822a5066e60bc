"""Results on stdout: a table for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns, as `docker compose ps` prints them: no lines, no colour, easy to cut."""
    texts = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max([len(c), *(len(row[i]) for row in texts)]) for i, c in enumerate(columns)]
    for row in [list(columns), *texts]:
        line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def ago(started: float | None, now: float) -> str:
    """How long something has been up, in its largest unit."""
    if started is None:
        return ""
    seconds = max(0, int(now - started))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
