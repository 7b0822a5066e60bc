"""What holds between services: profiles, dependencies, networks, volumes and published ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from deploykit.spec import dotenv
from deploykit.spec.model import Position, Service
from deploykit.spec.mounts import Place
from deploykit.spec.nodes import Map, Node, Scalar, Seq, fail, scalar_text
from deploykit.spec.schema import nearest
from deploykit.spec.units import text_of


def enabled(services: Map, profiles: Set[str]) -> Map:
    """The services that have no profile or an active one (``*`` is all)."""
    kept: dict[str, Node] = {}
    for name, node in services.items.items():
        given = node.get("profiles") if isinstance(node, Map) else None
        names = (
            {scalar_text(item.value) for item in given.items if isinstance(item, Scalar)}
            if isinstance(given, Seq)
            else set()
        )
        if not names or "*" in profiles or names & profiles:
            kept[name] = node
    return Map(kept, services.at, services.keys)


def implied_dependencies(name: str, node: Map) -> Map:
    """``links``, ``volumes_from`` and the ``service:NAME`` modes are dependencies too."""
    found: dict[str, Node] = {}
    for key in ("links", "volumes_from"):
        listed = node.get(key)
        for item in listed.items if isinstance(listed, Seq) else ():
            text = scalar_text(item.value) if isinstance(item, Scalar) else ""
            if not text.startswith("container:"):
                found[text.partition(":")[0]] = item
    for key in ("network_mode", "ipc", "pid"):
        mode = node.get(key)
        if isinstance(mode, Scalar) and scalar_text(mode.value).startswith("service:"):
            found[scalar_text(mode.value).partition(":")[2]] = mode
    given = node.get("depends_on")
    items = dict(given.items) if isinstance(given, Map) else {}
    keys = dict(given.keys) if isinstance(given, Map) else {}
    added = {other: item for other, item in found.items() if other not in items and other != name}
    if not added:
        return node
    for other, item in added.items():
        values: dict[str, Node] = {"condition": Scalar("service_started", item.at), "required": Scalar(True, item.at)}
        link = node.get("volumes_from")
        if not (isinstance(link, Seq) and item in link.items):
            values["restart"] = Scalar(True, item.at)
        items[other] = Map(values, item.at)
        keys[other] = item.at
    return node.with_items({"depends_on": Map(items, node.at, keys)})


def environment(name: str, node: Map, place: Place) -> Map:
    """The service with its env files read into ``environment`` and bare names taken from the surroundings."""
    values: dict[str, Node] = {}
    keys: dict[str, Position] = {}
    gathered: dict[str, str] = {}
    files = node.get("env_file")
    for entry in files.items if isinstance(files, Seq) else ():
        assert isinstance(entry, Map)
        path = Path(text_of(entry.items["path"], "env_file"))
        required = entry.items["required"]
        if isinstance(required, Scalar) and not required.value and not path.is_file():
            continue
        form = entry.get("format")
        if form is not None and text_of(form, "format") != "raw":
            raise fail(form.at, f"services.{name}.env_file.format must be raw, not '{text_of(form, 'format')}'")
        at = entry.items["path"].at
        known = {**gathered, **place.environ}
        for key, value in dotenv.read(path, known, at=at, raw=form is not None).items():
            gathered[key] = value
            values[key] = Scalar(value, at)
            keys[key] = at
    given = node.get("environment")
    if isinstance(given, Map):
        for key, item in given.items.items():
            bare = isinstance(item, Scalar) and item.value is None
            values[key] = Scalar(place.environ[key], item.at) if bare and key in place.environ else item
            keys[key] = given.key_at(key)
    changed = node.without("env_file")
    if values:
        return changed.with_items({"environment": Map(dict(sorted(values.items())), node.at, keys)})
    return changed.without("environment")


def without_disabled(node: Map, chosen: Map, everything: Map) -> Map:
    """The service without its optional dependencies on services that no active profile enables."""
    given = node.get("depends_on")
    if not isinstance(given, Map):
        return node
    gone: list[str] = []
    for other, entry in given.items.items():
        required = entry.get("required") if isinstance(entry, Map) else None
        optional = isinstance(required, Scalar) and required.value is False
        if optional and other in everything.items and other not in chosen.items:
            gone.append(other)
    return node.with_items({"depends_on": given.without(*gone)}) if gone else node


def check_dependencies(services: Mapping[str, Map], everything: Map) -> None:
    """Every dependency names an enabled service, and there is no circle."""
    for name, node in services.items():
        given = node.get("depends_on")
        for other in given.items if isinstance(given, Map) else ():
            if other in services:
                continue
            assert isinstance(given, Map)
            at = given.key_at(other)
            if other in everything.items:
                profiles = everything.items[other]
                listed = profiles.get("profiles") if isinstance(profiles, Map) else None
                names = (
                    [scalar_text(i.value) for i in listed.items if isinstance(i, Scalar)]
                    if isinstance(listed, Seq)
                    else []
                )
                hint = f"add --profile {names[0]}" if names else ""
                raise fail(at, f"services.{name} depends on '{other}', which no active profile enables", hint)
            raise fail(
                at, f"services.{name} depends on '{other}', which is not a service{nearest(other, everything.items)}"
            )
    _check_circles(services)


def _check_circles(services: Mapping[str, Map]) -> None:
    done: set[str] = set()
    for start in services:
        trail: list[str] = []
        stack: list[tuple[str, bool]] = [(start, True)]
        while stack:
            name, entering = stack.pop()
            if not entering:
                trail.pop()
                done.add(name)
                continue
            if name in trail:
                circle = [*trail[trail.index(name) :], name]
                given = services[trail[-1]].items["depends_on"]
                at = given.key_at(name) if isinstance(given, Map) else given.at
                raise fail(at, f"services depend on each other in a circle: {' -> '.join(circle)}")
            if name in done:
                continue
            trail.append(name)
            stack.append((name, False))
            given_on = services[name].get("depends_on")
            names = list(given_on.items) if isinstance(given_on, Map) else []
            stack.extend((other, True) for other in reversed(names) if other in services)


def check_platform(name: str, node: Map) -> None:
    """A service's platform is among those it is built for."""
    build, platform = node.get("build"), node.get("platform")
    listed = build.get("platforms") if isinstance(build, Map) else None
    if isinstance(listed, Seq) and listed.items and isinstance(platform, Scalar):
        names = [scalar_text(item.value) for item in listed.items if isinstance(item, Scalar)]
        if platform.value not in names:
            raise fail(platform.at, f"services.{name}.platform must be one of its build.platforms: {', '.join(names)}")


def with_default_network(node: Map) -> Map:
    """A service that names no network joins ``default``, unless it has a network mode."""
    if node.get("network_mode") is not None:
        if isinstance(networks := node.get("networks"), Map) and networks.items:
            at = node.key_at("network_mode")
            raise fail(at, "network_mode and networks exclude each other", "keep one of the two")
        return node
    networks = node.get("networks")
    if isinstance(networks, Map) and networks.items:
        return node
    return node.with_items({"networks": Map({"default": Scalar(None, node.at)}, node.at)})


def used(services: Iterable[Map], key: str) -> dict[str, Position]:
    """The networks, volumes, secrets or configs that services name, each with the first place."""
    found: dict[str, Position] = {}
    for node in services:
        given = node.get(key)
        if isinstance(given, Map):
            for name in given.items:
                found.setdefault(name, given.key_at(name))
        for entry in given.items if isinstance(given, Seq) else ():
            source = entry.get("source") if isinstance(entry, Map) else None
            kind_of = entry.items.get("type") if isinstance(entry, Map) else None
            if isinstance(source, Scalar) and (
                key != "volumes" or (isinstance(kind_of, Scalar) and kind_of.value == "volume")
            ):
                found.setdefault(scalar_text(source.value), source.at)
    return found


def check_ports(services: Mapping[str, Service], nodes: Mapping[str, Map]) -> None:
    """No two services publish the same port on the same address."""
    taken: dict[tuple[str, int], list[tuple[str, str, Position]]] = {}
    for name, service in services.items():
        listed = nodes[name].get("ports")
        places = [item.at for item in listed.items] if isinstance(listed, Seq) else []
        for port, at in zip(service.ports, places, strict=True):
            if port.published is None:
                continue
            row = taken.setdefault((port.protocol, port.published), [])
            for other, host, where in row:
                if other != name and _overlap(host, port.host_ip):
                    message = f"services.{name} publishes port {port.published}, which services.{other} has at {where}"
                    raise fail(at, message, "give one of the two another port")
            row.append((name, port.host_ip, at))


def _overlap(first: str, second: str) -> bool:
    a, b = ipaddress.ip_address(first), ipaddress.ip_address(second)
    return a == b or a.is_unspecified or b.is_unspecified
