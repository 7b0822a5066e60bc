"""Several Compose files as one: the later file wins, by the rules of the Compose specification's merge chapter.

Mappings are merged, lists appended, ``command``, ``entrypoint`` and a healthcheck's ``test`` replaced; ports, volumes,
devices, configs and secrets are unique by what they name. ``!reset`` takes a value away, ``!override`` replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.spec.nodes import Map, Node, Scalar, Seq

_REPLACED = ("command", "entrypoint", "test")
_KEYED: Mapping[str, tuple[str, ...]] = {
    "ports": ("host_ip", "target", "published", "protocol"),
    "volumes": ("target",),
    "devices": ("target",),
    "configs": ("target", "source"),
    "secrets": ("target", "source"),
    "env_file": ("path",),
}
_ONE_NAME = ("configs", "secrets")


def clean(node: Node) -> Node:
    """Without what ``!reset`` takes away and without tags."""
    if isinstance(node, Map):
        kept = {key: clean(value) for key, value in node.items.items() if value.tag != "!reset"}
        return Map(kept, node.at, node.keys)
    if isinstance(node, Seq):
        return Seq(tuple(clean(item) for item in node.items if item.tag != "!reset"), node.at)
    return Scalar(node.value, node.at, "", node.inset)


def merge(base: Map, over: Map) -> Map:
    """``over`` laid upon ``base``; both in the one form of `deploykit.spec.canonical`."""
    items = dict(base.items)
    keys = {**base.keys, **over.keys}
    for key, value in over.items.items():
        if value.tag == "!reset":
            items.pop(key, None)
        elif value.tag == "!override" or key not in items:
            items[key] = clean(value)
        else:
            items[key] = _value(key, items[key], value)
    return Map(items, base.at, keys)


def _value(key: str, base: Node, over: Node) -> Node:
    if isinstance(over, Scalar) and over.value is None:
        return base
    if isinstance(base, Map) and isinstance(over, Map):
        if key == "logging" and _differs(base, over, "driver"):
            return clean(over)
        return merge(base, over)
    if isinstance(base, Seq) and isinstance(over, Seq) and key not in _REPLACED:
        return Seq(_appended(key, base, over), base.at)
    return clean(over)


def _differs(base: Map, over: Map, key: str) -> bool:
    first, second = base.get(key), over.get(key)
    return isinstance(first, Scalar) and isinstance(second, Scalar) and first.value != second.value


def _appended(key: str, base: Seq, over: Seq) -> tuple[Node, ...]:
    found: dict[object, Node] = {}
    for item in (*base.items, *over.items):
        item = clean(item)
        name = _identity(key, item)
        before = found.get(name)
        found[name] = merge(before, item) if isinstance(before, Map) and isinstance(item, Map) else item
    return tuple(found.values())


def _identity(key: str, item: Node) -> object:
    if isinstance(item, Scalar):
        return (type(item.value), item.value)
    if isinstance(item, Map) and key in _KEYED:
        values = [_scalar(item, name) for name in _KEYED[key]]
        return next((v for v in values if v is not None), None) if key in _ONE_NAME else tuple(values)
    return id(item)


def _scalar(item: Map, name: str) -> object:
    node = item.items.get(name)
    return node.value if isinstance(node, Scalar) else None
