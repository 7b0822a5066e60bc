"""The short and the long form of ``ports:`` as one form: a mapping per port, ranges expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deploykit.spec.model import Position
from deploykit.spec.nodes import Map, Node, Scalar, Seq, Value, fail, scalar_text
from deploykit.spec.units import integer, text_of

_SHORT = re.compile(
    r"(?:(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[^:\[\]]*):)?(?P<published>[0-9]{0,9}(?:-[0-9]{1,9})?):)?"
    r"(?P<target>[0-9]{1,9}(?:-[0-9]{1,9})?)(?:/(?P<protocol>[A-Za-z]+))?\Z"
)
_HINT = "a port is written like 8080:80, 127.0.0.1:8080:80/tcp or 8000-8002:8000-8002"


def expand(node: Node) -> Seq:
    """Every port of a ``ports:`` list in the long form (mode, host_ip, target, published, protocol)."""
    assert isinstance(node, Seq)
    expanded: list[Node] = []
    for item in node.items:
        if isinstance(item, Map):
            expanded.append(_long(item))
        elif isinstance(item, Scalar):
            expanded.extend(_short(item))
    return Seq(tuple(expanded), node.at, node.tag)


def _range(text: str, at: Position) -> tuple[int, int]:
    first, _, last = text.partition("-")
    low, high = int(first), int(last or first)
    if not 0 < low <= 65535 or not 0 < high <= 65535:
        raise fail(at, f"a port is 1 to 65535, not '{text}'", _HINT)
    if high < low:
        raise fail(at, f"the port range '{text}' ends before it starts", _HINT)
    return low, high


def _short(node: Scalar) -> Iterator[Map]:
    text = scalar_text(node.value)
    found = _SHORT.match(text)
    if not found or (found["published"] or "").startswith("-"):
        raise fail(node.at, f"'{text}' is not a port", _HINT)
    low, high = _range(found["target"], node.at)
    protocol = (found["protocol"] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise fail(node.at, f"the protocol of '{text}' must be tcp or udp", _HINT)
    ip = (found["ip"] or "").strip("[]")
    published = found["published"] or ""
    if published:
        host_low, host_high = _range(published, node.at)
        if low == high:
            yield _port(node.at, ip, low, published, protocol)
            return
        if host_high - host_low != high - low:
            raise fail(node.at, f"the two port ranges of '{text}' differ in length", _HINT)
    for step in range(high - low + 1):
        yield _port(node.at, ip, low + step, str(host_low + step) if published else "", protocol)


def _port(at: Position, ip: str, target: int, published: str, protocol: str) -> Map:
    values: dict[str, Value] = {"mode": "ingress"}
    if ip:
        values["host_ip"] = ip
    values["target"] = target
    if published:
        values["published"] = published
    values["protocol"] = protocol
    return Map({key: Scalar(value, at) for key, value in values.items()}, at)


def _long(node: Map) -> Map:
    target = node.get("target")
    if target is None:
        raise fail(node.at, "a port needs the key 'target'", _HINT)
    items: dict[str, Node] = {"mode": Scalar("ingress", node.at), "protocol": Scalar("tcp", node.at), **node.items}
    items["target"] = Scalar(integer(target, "target", 1, 65535), target.at)
    published = node.get("published")
    if published is not None:
        text = text_of(published, "published")
        if not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?", text):
            raise fail(published.at, f"published must be a port or a range of ports, not '{text}'", _HINT)
        if text != "0":
            _range(text, published.at)
        items["published"] = Scalar(text, published.at)
    return Map(items, node.at, node.keys, node.tag)
