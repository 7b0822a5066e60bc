"""Access-log lines a second that one process turns into windows: `python benchmarks/bench_windows.py`."""

from __future__ import annotations

import random
import time
import tracemalloc

from deploykit.metrics.windows import WindowAggregator


def lines(count: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    out = []
    for i in range(count):
        canary = rng.random() < 0.05
        took = rng.lognormvariate(3.0, 0.5) / 1000.0
        address, status, spent = f"127.0.0.1:{9000 + rng.randrange(8)}", "200", f"{took:.3f}"
        if canary and rng.random() < 0.1:
            address, status, spent = f"{address} : 127.0.0.1:9001", "500 : 200", f"{spent} : {took:.3f}"
        out.append(
            b'{"t":%.3f,"s":"web","k":"%s","c":200,"rt":%.3f,"m":"GET","f":"","ua":"%s","us":"%s","ut":"%s"}\n'
            % (1_700_000_000 + i / 5000, b"canary" if canary else b"stable", took, address.encode(), status.encode(),
               spent.encode())
        )  # fmt: skip
    return out


def rate(sample: list[bytes] | None = None) -> float:
    """Lines a second, the best of three."""
    sample = sample or lines(200_000)
    best = 0.0
    for _ in range(3):
        aggregator = WindowAggregator()
        began = time.perf_counter()
        for i in range(0, len(sample), 1000):
            aggregator.feed(sample[i : i + 1000])
        best = max(best, len(sample) / (time.perf_counter() - began))
    return best


def main() -> None:
    sample = lines(200_000)
    print(f"{rate(sample):,.0f} lines/s ({len(sample):,} lines)")
    tracemalloc.start()
    aggregator = WindowAggregator()
    for i in range(0, len(sample), 1000):
        aggregator.feed(sample[i : i + 1000])
    print(f"{tracemalloc.get_traced_memory()[1] / 1024:,.0f} KiB at the peak")


if __name__ == "__main__":
    main()
