"""From what is observed to what is desired: the Plan. The text of a plan is what `--dry-run` prints and tests compare.

The order that loses no request: start, await healthy, route in, route out, drain, stop, remove.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from deploykit.core.replica import Replica

Kind = Literal["start", "await", "route", "drain", "stop", "remove", "keep"]


@dataclass(frozen=True)
class Want:
    """How many replicas of one version a service should have."""

    version: str
    replicas: int


@dataclass(frozen=True)
class Desired:
    """A service as it should be. ``weight`` is the canary's share in percent.

    ``stable`` and ``canary`` may be None: a service that is going away, or one that has no rollout.
    """

    service: str
    stable: Want | None
    canary: Want | None = None
    weight: float = 0.0

    def wants(self) -> tuple[Want, ...]:
        return tuple(w for w in (self.stable, self.canary) if w is not None)


@dataclass(frozen=True)
class Action:
    """One effect and its cause. ``number`` names the replica; routes carry who is on which track instead."""

    kind: Kind
    service: str
    cause: str
    version: str = ""
    number: int = 0
    stable: frozenset[str] = frozenset()
    canary: str | None = None
    weight: float = 0.0
    without: frozenset[int] = frozenset()

    def describe(self) -> str:
        if self.kind == "route":
            text = f"stable {'+'.join(sorted(self.stable)) or 'none'}"
            if self.canary:
                text += f" {100 - self.weight:g}%, canary {self.canary} {self.weight:g}%"
            if self.without:
                text += f", without {', '.join(f'{self.service}-{n}' for n in sorted(self.without))}"
            return f"route  {self.service}: {text}"
        what = f"{self.service}-{self.number}" if self.number else self.service
        return f"{self.kind:<6} {what}" + (f" ({self.version})" if self.version else "")


@dataclass(frozen=True)
class Stage:
    """Actions that may run at the same time. ``pause`` seconds are waited after them."""

    actions: tuple[Action, ...]
    pause: float = 0.0


@dataclass(frozen=True)
class Plan:
    stages: tuple[Stage, ...]

    @property
    def actions(self) -> tuple[Action, ...]:
        return tuple(a for stage in self.stages for a in stage.actions)

    @property
    def changes(self) -> bool:
        return any(a.kind in ("start", "stop", "remove") for a in self.actions)

    def text(self) -> str:
        """One line an action, a blank line between stages; each says why."""
        blocks = []
        for stage in self.stages:
            lines = [f"{a.describe():<44} # {a.cause}" for a in stage.actions]
            if stage.pause:
                lines.append(f"pause  {stage.pause:g}s")
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) + ("\n" if blocks else "")

    def __add__(self, other: Plan) -> Plan:
        return Plan(self.stages + other.stages)


def reconcile(desired: Desired, observed: Iterable[Replica], *, reserved: Iterable[int] = ()) -> Plan:
    """The plan that brings one service from `observed` to `desired`, all new replicas at once.

    What runs in a wanted version stays; dead replicas are removed and replaced; the highest numbers go first.
    ``reserved`` are numbers that may not be given out.
    """
    mine = sorted((r for r in observed if r.service == desired.service), key=lambda r: r.number)
    alive = [r for r in mine if r.running]
    dead = [r for r in mine if not r.running]
    wanted = {w.version: w.replicas for w in desired.wants()}
    free = _free_numbers({r.number for r in alive} | set(reserved))
    starts: list[Action] = []
    stops: list[Action] = []
    keeps: list[Action] = []
    for version, count in wanted.items():
        have = [r for r in alive if r.version == version]
        for replica in have[count:]:
            stops.append(Action("stop", desired.service, f"{count} wanted, {len(have)} run", version, replica.number))
        for _ in range(count - len(have)):
            cause = f"{count} wanted, {len(have)} run{'s' if len(have) == 1 else ''}"
            starts.append(Action("start", desired.service, cause, version, next(free)))
        if len(have) >= count > 0:
            keeps.append(Action("keep", desired.service, f"{count} of {count} run", version))
    for replica in alive:
        if replica.version not in wanted:
            stops.append(
                Action("stop", desired.service, "its version is no longer wanted", replica.version, replica.number)
            )
    return _staged(desired, starts, stops, dead, keeps, first=not alive)


def _free_numbers(taken: set[int]) -> Iterator[int]:
    number = 0
    while True:
        number += 1
        if number not in taken:
            yield number


def _staged(
    desired: Desired,
    starts: list[Action],
    stops: list[Action],
    dead: list[Replica],
    keeps: list[Action],
    *,
    first: bool,
) -> Plan:
    service = desired.service
    stages: list[Stage] = []
    if dead:
        stages.append(Stage(tuple(Action("remove", service, f"it is {r.state}", r.version, r.number) for r in dead)))
    if starts:
        opening = [Action("route", service, "its ports open while the first replicas start")] if first else []
        stages.append(Stage((*opening, *starts)))
        stages.append(Stage(tuple(_like(a, "await", "started above") for a in starts)))
    route = _route(desired, frozenset(a.number for a in stops), "the replicas or weights above")
    stages.append(Stage((route,)))
    if stops:
        stages += _farewell(stops)
    if keeps and not starts and not stops:
        stages.insert(0, Stage(tuple(keeps)))
    return Plan(tuple(stages))


def _route(desired: Desired, without: frozenset[int], cause: str) -> Action:
    return Action(
        "route",
        desired.service,
        cause,
        stable=frozenset({desired.stable.version} if desired.stable else ()),
        canary=desired.canary.version if desired.canary else None,
        weight=desired.weight,
        without=without,
    )


def _farewell(stops: Sequence[Action]) -> list[Stage]:
    return [
        Stage(tuple(_like(a, "drain", "routed out above") for a in stops)),
        Stage(tuple(stops)),
        Stage(tuple(_like(a, "remove", "stopped above") for a in stops)),
    ]


def _like(action: Action, kind: Kind, cause: str) -> Action:
    return Action(kind, action.service, cause, action.version, action.number)


def roll(
    desired: Desired,
    observed: Iterable[Replica],
    *,
    parallelism: int = 1,
    start_first: bool = True,
    delay: float = 0.0,
) -> Plan:
    """The plan of a rolling update: `parallelism` replicas at a time move to ``desired.stable``.

    The meaning of the arguments is Compose's ``deploy.update_config`` (0 replaces all at once); ``delay`` is seconds
    between batches. With ``start_first`` at most `parallelism` extra replicas exist at any time.
    """
    if desired.stable is None:
        return reconcile(desired, observed)
    mine = sorted((r for r in observed if r.service == desired.service), key=lambda r: r.number)
    new = desired.stable.version
    old = [r for r in mine if r.running and r.version != new]
    if not old:
        return reconcile(desired, mine)
    dead = [r for r in mine if not r.running]
    fresh = [r for r in mine if r.running and r.version == new]
    missing = max(0, desired.stable.replicas - len(fresh))
    old += fresh[desired.stable.replicas :]
    batch = parallelism if parallelism > 0 else max(missing, len(old))
    free = _free_numbers({r.number for r in mine if r.running})
    versions = frozenset({new} | {r.version for r in old})
    stages: list[Stage] = []
    if dead:
        stages.append(
            Stage(tuple(Action("remove", desired.service, f"it is {r.state}", r.version, r.number) for r in dead))
        )
    gone: set[int] = set()
    while missing or old:
        leaving, old = old[:batch], old[batch:]
        coming = min(batch, missing) if old else missing
        missing -= coming
        stops = [Action("stop", desired.service, f"replaced by {new}", r.version, r.number) for r in leaving]
        starts = [
            Action("start", desired.service, f"moves from {leaving[0].version if leaving else 'nothing'}", new, n)
            for n in _take(free, coming)
        ]
        gone |= {a.number for a in stops}
        arrive = [Stage(tuple(starts)), Stage(tuple(_like(a, "await", "started above") for a in starts))]
        routed = Stage((_rolling_route(desired.service, versions, frozenset(a.number for a in stops)),))
        if start_first:
            stages += [*(arrive if starts else []), routed, *(_farewell(stops) if stops else [])]
        else:
            stages += [routed, *(_farewell(stops) if stops else []), *(arrive if starts else [])]
            stages.append(Stage((_rolling_route(desired.service, versions, frozenset()),)))
        if delay and old:
            stages.append(Stage((), pause=delay))
    stages.append(Stage((_route(desired, frozenset(), "all replicas are of the new version"),)))
    return Plan(tuple(stages))


def _take(numbers: Iterator[int], count: int) -> list[int]:
    return [next(numbers) for _ in range(count)]


def _rolling_route(service: str, versions: frozenset[str], without: frozenset[int]) -> Action:
    return Action("route", service, "new replicas in, old ones out", stable=versions, without=without)


def renew(service: str, observed: Iterable[Replica]) -> Plan:
    """Replace every running replica by a new one of its own version, one at a time, the new one first."""
    mine = sorted((r for r in observed if r.service == service and r.running), key=lambda r: r.number)
    free = _free_numbers({r.number for r in mine})
    versions = frozenset(r.version for r in mine)
    stages: list[Stage] = []
    for old in mine:
        start = Action("start", service, f"renews {service}-{old.number}", old.version, next(free))
        stop = Action("stop", service, "renewed", old.version, old.number)
        stages += [
            Stage((start,)),
            Stage((_like(start, "await", "started above"),)),
            Stage((_rolling_route(service, versions, frozenset({old.number})),)),
            *_farewell([stop]),
        ]
    return Plan(tuple(stages))
