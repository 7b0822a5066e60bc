"""One service of the merged tree as a `Service`: defaults applied, numbers in seconds and bytes, ranges checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

from deploykit.spec import extension
from deploykit.spec.model import (
    Build,
    Dependency,
    Extension,
    Healthcheck,
    Mount,
    Port,
    Resources,
    Service,
    UpdateConfig,
    Warning,
)
from deploykit.spec.nodes import Map, Node, Scalar, Seq, fail, scalar_text
from deploykit.spec.units import choice, duration, fraction, integer, number, size, text_of

TCP_PORTS = frozenset(
    {22, 25, 53, 1433, 1521, 1883, 2181, 3306, 4222, 5432, 5671, 5672, 6379, 9042, 9092, 11211, 26257, 27017}
    | {33060, 61616}
)
_RESTART = re.compile(r"(no|always|unless-stopped|on-failure(:[0-9]+)?)\Z")


def build_service(name: str, node: Map, at_key: Node, warn: Callable[[Warning], None]) -> Service:
    """Read one service. ``at_key`` carries the position of the service's name."""
    what = f"services.{name}"
    ext = node.get("x-deploykit")
    deploy = node.get("deploy")
    deploy = deploy if isinstance(deploy, Map) else Map({}, node.at)
    if node.get("image") is None and node.get("build") is None:
        raise fail(at_key.at, f"{what} has neither an image nor a build", "add `image: NAME` or `build: FOLDER`")
    return Service(
        name=name,
        position=at_key.at,
        image=_text(node, "image", what),
        build=_build(node.get("build"), f"{what}.build"),
        command=_words(node.get("command")),
        entrypoint=_words(node.get("entrypoint")),
        environment=_pairs(node.get("environment")),
        ports=tuple(_port(port, f"{what}.ports") for port in _maps(node.get("ports"))),
        expose=_expose(node.get("expose")),
        depends_on=_dependencies(node.get("depends_on")),
        healthcheck=_healthcheck(node.get("healthcheck")),
        replicas=_replicas(node, deploy, what),
        resources=_resources(node, deploy, what),
        update_config=_update(deploy.get("update_config"), f"{what}.deploy.update_config"),
        restart=_restart(node, deploy, what),
        volumes=tuple(mount for entry in _maps(node.get("volumes")) if (mount := _mount(entry)) is not None),
        networks=_networks(node.get("networks")),
        labels=_pairs(node.get("labels")),
        stop_grace_period=_seconds(node.get("stop_grace_period"), 10.0),
        stop_signal=_text(node, "stop_signal", what) or "SIGTERM",
        user=_text(node, "user", what),
        working_dir=_text(node, "working_dir", what),
        read_only=_true(node.get("read_only")),
        cap_drop=_words(node.get("cap_drop")) or (),
        cap_add=_words(node.get("cap_add")) or (),
        security_opt=_words(node.get("security_opt")) or (),
        tmpfs=_words(node.get("tmpfs")) or (),
        profiles=_words(node.get("profiles")) or (),
        extension=extension.read(ext, f"{what}.x-deploykit", warn) if ext is not None else Extension(),
    )


def _text(node: Map, key: str, what: str) -> str | None:
    value = node.get(key)
    return None if value is None else text_of(value, f"{what}.{key}")


def _true(node: Node | None) -> bool:
    return isinstance(node, Scalar) and node.value is True


def _words(node: Node | None) -> tuple[str, ...] | None:
    if not isinstance(node, Seq):
        return None
    return tuple(scalar_text(item.value) for item in node.items if isinstance(item, Scalar))


def _maps(node: Node | None) -> list[Map]:
    return [item for item in node.items if isinstance(item, Map)] if isinstance(node, Seq) else []


def _pairs(node: Node | None) -> dict[str, str]:
    if not isinstance(node, Map):
        return {}
    found = {key: value.value for key, value in node.items.items() if isinstance(value, Scalar)}
    return {key: scalar_text(value) for key, value in found.items() if value is not None}


def _seconds(node: Node | None, otherwise: float) -> float:
    return otherwise if node is None else duration(node, "duration")


def _build(node: Node | None, what: str) -> Build | None:
    if not isinstance(node, Map):
        return None
    return Build(
        context=Path(text_of(node.items["context"], f"{what}.context")),
        dockerfile=_text(node, "dockerfile", what) or "Dockerfile",
        args=_pairs(node.get("args")),
        target=_text(node, "target", what),
    )


def _port(node: Map, what: str) -> Port:
    target = integer(node.items["target"], f"{what}.target", 1, 65535)
    protocol_node = node.items["protocol"]
    protocol = choice(protocol_node, f"{what}.protocol", ("tcp", "udp"))
    published = node.get("published")
    low = int(text_of(published, f"{what}.published").partition("-")[0]) if published else 0
    host_node = node.get("host_ip")
    host = text_of(host_node, f"{what}.host_ip") if host_node else "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise fail(host_node.at if host_node else node.at, f"'{host}' is not an IP address") from None
    app_node = node.get("app_protocol")
    app = "tcp" if target in TCP_PORTS or protocol == "udp" else "http"
    if app_node is not None:
        said = text_of(app_node, f"{what}.app_protocol")
        app = "http" if said.lower() in ("http", "https", "http2", "grpc", "ws", "h2c") else "tcp"
    return Port(
        target=target,
        published=low or None,
        host_ip=host,
        protocol="udp" if protocol == "udp" else "tcp",
        app_protocol="http" if app == "http" else "tcp",
    )


def _expose(node: Node | None) -> tuple[int, ...]:
    ports: list[int] = []
    for text in _words(node) or ():
        first, _, last = text.partition("/")[0].partition("-")
        ports.extend(range(int(first), min(int(last or first), 65535) + 1))
    return tuple(dict.fromkeys(ports))


def _dependencies(node: Node | None) -> dict[str, Dependency]:
    found: dict[str, Dependency] = {}
    for name, entry in node.items.items() if isinstance(node, Map) else ():
        if not isinstance(entry, Map):
            continue
        condition = text_of(entry.items["condition"], "condition")
        found[name] = Dependency(
            condition="service_healthy"
            if condition == "service_healthy"
            else "service_completed_successfully"
            if condition == "service_completed_successfully"
            else "service_started",
            required=_true(entry.get("required")),
            restart=_true(entry.get("restart")),
        )
    return found


def _healthcheck(node: Node | None) -> Healthcheck | None:
    """An empty ``test`` is the image's own, with other times."""
    if not isinstance(node, Map):
        return None
    default = Healthcheck(())
    retries = node.get("retries")
    return Healthcheck(
        test=("NONE",) if _true(node.get("disable")) else _words(node.get("test")) or (),
        interval=_seconds(node.get("interval"), default.interval),
        timeout=_seconds(node.get("timeout"), default.timeout),
        retries=integer(retries, "retries") if retries else default.retries,
        start_period=_seconds(node.get("start_period"), default.start_period),
        start_interval=_seconds(node.get("start_interval"), default.start_interval),
    )


def _same(first: Node | None, second: Node | None, names: tuple[str, str], what: str) -> Node | None:
    """The one of two keys that is set; setting both to different values is an error, as in Compose."""
    if isinstance(first, Scalar) and isinstance(second, Scalar) and first.value != second.value:
        at = second.at
        raise fail(at, f"{what}: '{names[0]}' and '{names[1]}' are both set and differ", f"keep one; {first.at}")
    return first if first is not None else second


def _replicas(node: Map, deploy: Map, what: str) -> int:
    value = _same(node.get("scale"), deploy.get("replicas"), ("scale", "deploy.replicas"), what)
    return 1 if value is None else integer(value, f"{what}.scale")


def _resources(node: Map, deploy: Map, what: str) -> Resources:
    resources = deploy.get("resources")
    given = resources.get("limits") if isinstance(resources, Map) else None
    limits = given if isinstance(given, Map) else Map({}, node.at)
    cpus = _same(node.get("cpus"), limits.get("cpus"), ("cpus", "deploy.resources.limits.cpus"), what)
    names = ("mem_limit", "deploy.resources.limits.memory")
    memory = _same(node.get("mem_limit"), limits.get("memory"), names, what)
    names = ("pids_limit", "deploy.resources.limits.pids")
    pids = _same(node.get("pids_limit"), limits.get("pids"), names, what)
    return Resources(
        cpus=(number(cpus, f"{what}.cpus") or None) if cpus else None,
        memory=(size(memory, f"{what}.mem_limit") or None) if memory else None,
        pids=_count(integer(pids, f"{what}.pids_limit")) if pids else None,
    )


def _count(value: int) -> int | None:
    return value if value > 0 else None


def _update(node: Node | None, what: str) -> UpdateConfig:
    default = UpdateConfig()
    if not isinstance(node, Map):
        return default
    parallelism, ratio = node.get("parallelism"), node.get("max_failure_ratio")
    order, action = _text(node, "order", what), _text(node, "failure_action", what)
    return UpdateConfig(
        parallelism=integer(parallelism, f"{what}.parallelism", 0) if parallelism else default.parallelism,
        order="stop-first" if order == "stop-first" else "start-first",
        delay=_seconds(node.get("delay"), default.delay),
        monitor=_seconds(node.get("monitor"), default.monitor),
        failure_action="pause" if action == "pause" else "continue" if action == "continue" else "rollback",
        max_failure_ratio=fraction(ratio, f"{what}.max_failure_ratio") if ratio else default.max_failure_ratio,
    )


def _restart(node: Map, deploy: Map, what: str) -> str:
    policy = deploy.get("restart_policy")
    if isinstance(policy, Map) and (condition := policy.get("condition")) is not None:
        text = choice(condition, f"{what}.deploy.restart_policy.condition", ("none", "on-failure", "any", *_EXTRA))
        attempts = policy.get("max_attempts")
        if text == "on-failure" and attempts is not None:
            return f"on-failure:{text_of(attempts, 'max_attempts')}"
        return {"none": "no", "any": "always"}.get(text, text)
    given = node.get("restart")
    if given is None:
        return "no"
    text = text_of(given, f"{what}.restart")
    if not _RESTART.match(text):
        raise fail(given.at, f"{what}.restart must be no, always, on-failure[:N] or unless-stopped, not '{text}'")
    return text


_EXTRA = ("always", "unless-stopped")


def _mount(node: Map) -> Mount | None:
    kind_of = text_of(node.items["type"], "type")
    if kind_of not in ("bind", "volume", "tmpfs"):
        return None
    target = node.get("target")
    if target is None:
        raise fail(node.at, "a volume needs the key 'target'")
    source = node.get("source")
    return Mount(
        type="bind" if kind_of == "bind" else "tmpfs" if kind_of == "tmpfs" else "volume",
        source=text_of(source, "source") if source is not None and kind_of != "tmpfs" else None,
        target=text_of(target, "target"),
        read_only=(scalar_text(ro.value).lower() == "true")
        if isinstance(ro := node.get("read_only"), Scalar)
        else False,
    )


def _networks(node: Node | None) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, entry in node.items.items() if isinstance(node, Map) else ():
        found[name] = (_words(entry.get("aliases")) or ()) if isinstance(entry, Map) else ()
    return found
