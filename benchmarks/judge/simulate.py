"""How often the judge is wrong, and how fast it is right: `python benchmarks/judge/simulate.py [--runs 200]`.

Fixed seeds; plain Python. Each run is looked at every second, as `rollout` does.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

from deploykit.core import judge
from deploykit.core.histogram import bucket
from deploykit.core.window import Window
from deploykit.spec.model import Analysis, Metric


@dataclass(frozen=True)
class Scene:
    """``rps`` requests/s, ``weight`` of the canary (0-1), failure rates (0-1), ``slower``: factor on its latency.

    ``pause``: the chance (0-1) that a replica stalls in a second, which makes 30% of its requests 200 ms slower.
    Canary is one replica, stable three. This breaks the test's assumption of independence, on purpose.
    """

    name: str
    bad: float
    base: float = 0.002
    rps: float = 100.0
    weight: float = 0.05
    slower: float = 1.0
    pause: float = 0.0
    next_weight: float = 0.25
    seconds: int = 120


def binomial(rng: random.Random, n: int, p: float) -> int:
    """How many of ``n`` happen: by the gaps between them, which are geometric."""
    if p <= 0.0 or n <= 0:
        return 0
    if p > 0.5:
        return n - binomial(rng, n, 1.0 - p)
    happened, at, scale = -1, -1, 1.0 / math.log1p(-p)
    while at < n:
        at += 1 + int(math.log(1.0 - rng.random()) * scale)
        happened += 1
    return happened


def second(rng: random.Random, scene: Scene, at: int, latency: bool, p_c: float | None = None) -> tuple[Window, Window]:
    """One second of both tracks: nearly Poisson arrivals, each sent by a coin, log-normal latency (median 20 ms)."""
    out = []
    total = binomial(rng, 1000, scene.rps / 1000.0)
    n_c = binomial(rng, total, scene.weight)
    for track, n, p, factor in (
        ("canary", n_c, scene.bad if p_c is None else p_c, scene.slower),
        ("stable", total - n_c, scene.base, 1.0),
    ):
        errors = binomial(rng, n, p)
        slots: dict[int, int] = {}
        if latency:
            replicas = 1 if track == "canary" else 3
            stalled = binomial(rng, replicas, scene.pause) / replicas
            for _ in range(n):
                stall = 0.2 if stalled and rng.random() < 0.3 * stalled else 0.0
                b = bucket(round(0.02 * factor * rng.lognormvariate(0.0, 0.5) + stall, 3))
                slots[b] = slots.get(b, 0) + 1
        out.append(Window(at, "web", track, n, errors, n, errors, 0, slots))
    return out[0], out[1]


def run(scene: Scene, seed: int, analysis: Analysis) -> tuple[str, int]:
    """The first verdict that decides and its second; ("inconclusive", seconds) where none did."""
    rng = random.Random(seed)
    latency = any(m.name == "latency" for m in analysis.metrics)
    state = judge.start(analysis)
    # Stable has had its traffic before the rollout starts; the judge knows its latency from then.
    calm = Scene("", 0.0, scene.base, scene.rps, 0.0)
    for at in range(-30, 0):
        state = judge.observe(state, *second(rng, calm, at, latency))
    for at in range(scene.seconds):
        state = judge.observe(state, *second(rng, scene, at, latency))
        said = judge.verdict(state, next_weight=scene.next_weight)
        if said.kind == "fail" or (said.kind == "pass" and scene.next_weight < 1.0 and scene.name[:3] != "A/A"):
            return said.kind, at + 1
    return "inconclusive", scene.seconds


SCENES = (
    Scene("A/A, no errors", 0.0, 0.0, seconds=300),
    Scene("A/A, 0.2% errors", 0.002, seconds=300),
    Scene("A/A, 5% errors", 0.05, 0.05, seconds=300),
    Scene("A/A, 50% weight", 0.002, weight=0.5, seconds=300),
    Scene("A/A, replicas stall 2%", 0.002, seconds=300, pause=0.02),
    Scene("A/A 25%, stall 2%", 0.002, seconds=300, weight=0.25, pause=0.02),
    Scene("fails 100%", 1.0),
    Scene("fails 20%", 0.2),
    Scene("fails 5%", 0.05, next_weight=0.999),
    Scene("fails 2%", 0.02, next_weight=0.999, seconds=300),
    Scene("fails 20%, 10 rps", 0.2, rps=10.0, next_weight=0.999, seconds=300),
    Scene("1.3x slower", 0.002, slower=1.3, next_weight=0.999),
    Scene("2x slower", 0.002, slower=2.0, next_weight=0.999),
    Scene("healthy, 5% -> 25%", 0.0005),
    Scene("healthy, 25% -> 50%", 0.0005, weight=0.25, next_weight=0.5),
    Scene("healthy, 50% -> 99%", 0.0005, weight=0.5, next_weight=0.99),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    with ProcessPoolExecutor() as pool:
        for title, metrics in (
            ("success-rate", (Metric("success-rate"),)),
            ("success-rate + latency", (Metric("success-rate"), Metric("latency"))),
        ):
            analysis = Analysis(metrics=metrics)
            print(
                f"\n{title}; false_alarm {analysis.false_alarm:.0%}, {runs} runs, 100 requests/s, weight 5% unless said"
            )
            print(f"{'scene':24} {'fail':>7} {'pass':>7} {'median s':>9} {'p95 s':>7}")
            for scene in SCENES:
                if (scene.slower > 1.0 or scene.pause) and len(metrics) == 1:
                    continue
                results = list(pool.map(run, repeat(scene), range(runs), repeat(analysis), chunksize=10))
                times = sorted(at for kind, at in results if kind != "inconclusive")
                shares = [sum(kind == k for kind, _ in results) / runs for k in ("fail", "pass")]
                median = (
                    f"{statistics.median(times):9.0f} {times[math.ceil(0.95 * len(times)) - 1]:7.0f}" if times else ""
                )
                print(f"{scene.name:24} {shares[0]:7.1%} {shares[1]:7.1%} {median}", flush=True)


if __name__ == "__main__":
    main()
