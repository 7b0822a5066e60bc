"""`python -m benchmarks [--quick] [--judge] [--only up|proxy|windows]`: one table of ratios within one run.

Listens on 127.0.0.1 only and removes what it made. Ratios carry over between machines, absolute figures do not.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks import bench_proxy, bench_up, bench_windows
from benchmarks.rows import Row


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Fewer rounds.")
    parser.add_argument("--judge", action="store_true", help="Also how often the judge is wrong (simulated, 40 runs).")
    parser.add_argument("--only", choices=["up", "proxy", "windows"], help="One part.")
    args = parser.parse_args()
    parts: dict[str, Callable[[], list[Row]]] = {
        "up": lambda: bench_up.rows(1 if args.quick else 5),
        "proxy": lambda: bench_proxy.rows(2 if args.quick else 9, 1.0 if args.quick else 2.0),
        "windows": lambda: [Row("access-log lines to windows", f"{bench_windows.rate():,.0f}/s", "", None, "one CPU")],
    }
    began = time.monotonic()
    rows = []
    for name, part in parts.items():
        if args.only in (None, name):
            print(f"{name} ...", file=sys.stderr)
            rows += part()
    table = Table(title=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs", title_justify="left")
    for column in ("what", "ours", "theirs", "ours/theirs", "note"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.what, row.ours, row.theirs, "" if row.ratio is None else f"{row.ratio:.2f}x", row.note)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    print(
        "Medians of interleaved rounds, the ratio within each round. Time and CPU: less is better; /s: more is better."
    )
    print(f"Took {time.monotonic() - began:.0f}s.")
    if args.judge:
        subprocess.run([sys.executable, "-m", "benchmarks.judge.simulate", "--runs", "40"], check=True)


if __name__ == "__main__":
    main()
