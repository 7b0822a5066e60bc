"""The plain judge, as people know it from Argo Rollouts and Flagger: measure every so often, count the bad ones.

Every ``interval`` seconds one measurement is taken over what came in since the last one: good where the failure ratio
is at most ``max_failure_ratio``, bad otherwise, inconclusive without requests. It fails with more than
``failure_limit`` bad measurements (in all, not in a row), passes after ``count`` measurements of which no more were
bad; with more than ``inconclusive_limit`` inconclusive ones it is an error. It makes no promise about false alarms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Threshold:
    """``interval`` is seconds; ``max_failure_ratio`` a fraction (0-1)."""

    interval: int = 5
    count: int = 3
    max_failure_ratio: float = 0.005
    failure_limit: int = 0
    inconclusive_limit: int = 12


@dataclass(frozen=True)
class ThresholdState:
    rule: Threshold
    seconds: int = 0
    attempts: int = 0
    errors: int = 0
    good: int = 0
    bad: int = 0
    unknown: int = 0
    last: str = ""

    def advance(self, attempts: int, errors: int) -> ThresholdState:
        """Take in one second of the canary."""
        new = replace(self, seconds=self.seconds + 1, attempts=self.attempts + attempts, errors=self.errors + errors)
        return new._measure() if new.seconds >= self.rule.interval else new

    def _measure(self) -> ThresholdState:
        new = replace(self, seconds=0, attempts=0, errors=0)
        if not self.attempts:
            return replace(new, unknown=self.unknown + 1, last="canary had no requests")
        ratio = self.errors / self.attempts
        last = f"canary failed {self.errors:,} of {self.attempts:,} requests ({ratio:.1%})"
        if ratio <= self.rule.max_failure_ratio:
            return replace(new, good=self.good + 1, last=last)
        return replace(new, bad=self.bad + 1, last=last)

    def verdict(self) -> tuple[Literal["pass", "fail", "inconclusive", "error"], str, float, float]:
        """Kind, reason, and how far along failing and passing are (0-1)."""
        rule = self.rule
        abort = min(self.bad / (rule.failure_limit + 1), 1.0)
        promote = min((self.good + self.bad) / rule.count, 1.0)
        tally = f"{self.bad} bad of {self.good + self.bad} measurements, {rule.failure_limit} allowed"
        if self.bad > rule.failure_limit:
            return "fail", f"{self.last}, allowed {rule.max_failure_ratio:.1%}: {tally}", 1.0, promote
        if self.unknown > rule.inconclusive_limit:
            return "error", f"{self.unknown} measurements found no request on the canary", abort, promote
        if self.good + self.bad >= rule.count:
            return "pass", f"{self.last}: {tally}", abort, 1.0
        return "inconclusive", f"{self.last or 'first measurement under way'}: {tally}", abort, promote
