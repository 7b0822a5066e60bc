"""``x-deploykit``: health, drain and rollout of a service, every key known and every value in range."""

from __future__ import annotations

import math
from collections.abc import Callable

from deploykit.spec.model import (
    Analysis,
    Extension,
    HealthProbe,
    Metric,
    RolloutPolicy,
    Step,
    Warning,
)
from deploykit.spec.nodes import Map, Node, Scalar, Seq, fail, kind
from deploykit.spec.schema import unknown_key
from deploykit.spec.units import choice, duration, fraction, integer, mapping, number, text_of

_LATER = ("affinity", "autoscale")
_ROLLOUT_LATER = ("shield", "header_route", "mirror")
_STRATEGIES = ("rolling", "canary", "blue-green", "recreate")


def read(node: Node, where: str, warn: Callable[[Warning], None]) -> Extension:
    """The extension of one service; ``where`` is its path, ``warn`` takes what is accepted but not acted on."""
    top = mapping(node, where)
    _known(top, where, ("health", "drain", "rollout", *_LATER))
    _later(top, where, _LATER, warn)
    default = Extension()
    health = top.get("health")
    drain = top.get("drain")
    rollout = top.get("rollout")
    return Extension(
        health=_health(health, f"{where}.health") if health else None,
        drain=duration(drain, f"{where}.drain") if drain else default.drain,
        rollout=_rollout(rollout, f"{where}.rollout", warn) if rollout else default.rollout,
    )


def _known(node: Map, where: str, names: tuple[str, ...]) -> None:
    for key in node.items:
        if key not in names and not key.startswith("x-"):
            raise unknown_key(node.key_at(key), key, where, names)


def _later(node: Map, where: str, names: tuple[str, ...], warn: Callable[[Warning], None]) -> None:
    for name in names:
        if name in node.items:
            warn(Warning(node.key_at(name), f"{where}.{name} is not acted on yet"))


def _positive(node: Node, where: str) -> float:
    value = duration(node, where)
    if value <= 0:
        raise fail(node.at, f"{where} must be more than 0s")
    return value


def _health(node: Node, where: str) -> HealthProbe:
    top = mapping(node, where)
    _known(top, where, ("path", "interval", "timeout", "deadline"))
    default = HealthProbe()
    path = default.path
    if (given := top.get("path")) is not None:
        path = text_of(given, f"{where}.path")
        if not path.startswith("/") or any(char.isspace() or not char.isprintable() for char in path):
            raise fail(given.at, f"{where}.path must be a path that starts with '/', not '{path}'")

    def time(key: str, otherwise: float) -> float:
        value = top.get(key)
        return _positive(value, f"{where}.{key}") if value is not None else otherwise

    return HealthProbe(
        path=path,
        interval=time("interval", default.interval),
        timeout=time("timeout", default.timeout),
        deadline=time("deadline", default.deadline),
    )


def _rollout(node: Node, where: str, warn: Callable[[Warning], None]) -> RolloutPolicy:
    top = mapping(node, where)
    _known(top, where, ("strategy", "steps", "analysis", "progress_deadline", *_ROLLOUT_LATER))
    _later(top, where, _ROLLOUT_LATER, warn)
    default = RolloutPolicy()
    strategy: str = default.strategy
    if (given := top.get("strategy")) is not None:
        strategy = choice(given, f"{where}.strategy", _STRATEGIES)
        if strategy in ("blue-green", "recreate"):
            warn(Warning(given.at, f"{where}.strategy {strategy} is not acted on yet, rolling is used"))
            strategy = "rolling"
    steps = top.get("steps")
    analysis = top.get("analysis")
    deadline = top.get("progress_deadline")
    return RolloutPolicy(
        strategy="canary" if strategy == "canary" else "rolling",
        steps=_steps(steps, f"{where}.steps") if steps is not None else default.steps,
        analysis=_analysis(analysis, f"{where}.analysis") if analysis is not None else None,
        progress_deadline=_positive(deadline, f"{where}.progress_deadline") if deadline else default.progress_deadline,
    )


def _steps(node: Node, where: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    highest = 0.0
    for index, item in enumerate(_items(node, where)):
        what = f"{where}[{index}]"
        entry = mapping(item, what)
        _known(entry, what, ("set_weight", "pause"))
        if len(entry.items) != 1:
            raise fail(entry.at, f"{what} must have either set_weight or pause")
        if "set_weight" in entry.items:
            weight_node = entry.items["set_weight"]
            weight = number(weight_node, f"{what}.set_weight", 0, 100)
            if weight < highest:
                raise fail(weight_node.at, f"{what}.set_weight is {weight:g}, less than the {highest:g} before it")
            highest = weight
            steps.append(Step(weight=weight))
        else:
            steps.append(Step(pause=_pause(entry.items["pause"], f"{what}.pause")))
    return tuple(steps)


def _pause(node: Node, where: str) -> float:
    """Seconds; infinity for ``{}`` and nothing, which wait for `promote`."""
    if isinstance(node, Scalar):
        return math.inf if node.value is None else duration(node, where)
    entry = mapping(node, where)
    _known(entry, where, ("duration",))
    given = entry.get("duration")
    return math.inf if given is None else duration(given, f"{where}.duration")


def _items(node: Node, where: str) -> tuple[Node, ...]:
    if not isinstance(node, Seq):
        raise fail(node.at, f"{where} must be a list, not {kind(node)}")
    return node.items


def _open_fraction(node: Node, where: str) -> float:
    value = fraction(node, where)
    if not 0 < value < 1:
        raise fail(node.at, f"{where} must lie between 0 and 1, both excluded, not {text_of(node, where)}")
    return value


def _analysis(node: Node, where: str) -> Analysis:
    top = mapping(node, where)
    names = ("mode", "false_alarm", "error_budget", "metrics", "min_requests", "initial_delay", "on_inconclusive")
    _known(top, where, names)
    default = Analysis()
    mode, otherwise = top.get("mode"), top.get("on_inconclusive")
    alarm, budget = top.get("false_alarm"), top.get("error_budget")
    metrics, least, delay = top.get("metrics"), top.get("min_requests"), top.get("initial_delay")
    modes, outcomes = ("sequential", "threshold"), ("pause", "promote", "abort")
    chosen_mode = choice(mode, f"{where}.mode", modes) if mode else default.mode
    outcome = choice(otherwise, f"{where}.on_inconclusive", outcomes) if otherwise else default.on_inconclusive
    return Analysis(
        mode="threshold" if chosen_mode == "threshold" else "sequential",
        false_alarm=_open_fraction(alarm, f"{where}.false_alarm") if alarm else default.false_alarm,
        error_budget=_open_fraction(budget, f"{where}.error_budget") if budget else default.error_budget,
        metrics=_metrics(metrics, f"{where}.metrics") if metrics else default.metrics,
        min_requests=integer(least, f"{where}.min_requests", 0) if least else default.min_requests,
        initial_delay=duration(delay, f"{where}.initial_delay") if delay else default.initial_delay,
        on_inconclusive="promote" if outcome == "promote" else "abort" if outcome == "abort" else "pause",
    )


def _metrics(node: Node, where: str) -> tuple[Metric, ...]:
    found: list[Metric] = []
    for index, item in enumerate(_items(node, where)):
        what = f"{where}[{index}]"
        entry = mapping(item, what)
        _known(entry, what, ("name", "quantiles", "tolerance"))
        name_node = entry.get("name")
        if name_node is None:
            raise fail(entry.at, f"{what} needs the key 'name'")
        name = choice(name_node, f"{what}.name", ("success-rate", "latency"))
        default = Metric()
        quantiles, tolerance = entry.get("quantiles"), entry.get("tolerance")
        values = default.quantiles
        if quantiles is not None:
            values = tuple(_open_fraction(q, f"{what}.quantiles") for q in _items(quantiles, f"{what}.quantiles"))
            if not values:
                raise fail(quantiles.at, f"{what}.quantiles is empty")
        found.append(
            Metric(
                name="latency" if name == "latency" else "success-rate",
                quantiles=values,
                tolerance=fraction(tolerance, f"{what}.tolerance") if tolerance else default.tolerance,
            )
        )
    if not found:
        raise fail(node.at, f"{where} is empty")
    return tuple(found)
