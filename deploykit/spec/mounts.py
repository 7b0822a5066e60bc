"""The short and the long form of ``volumes:`` as one form, host paths made absolute."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploykit.spec.nodes import Map, Node, Scalar, Seq, fail, scalar_text
from deploykit.spec.units import size, text_of

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_WINDOWS_SHORT = re.compile(r"[A-Za-z]:(\\|/[^:]*:[\\/])")
_HINT = "a volume is written like ./here:/there, name:/there or name:/there:ro"
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


@dataclass(frozen=True)
class Place:
    """Where relative paths of a file start, and the variables ``~`` and env files use."""

    base: Path
    environ: Mapping[str, str]

    def path(self, text: str) -> str:
        """Absolute, without ``.`` and ``..``; ``~`` is HOME. Symbolic links stay."""
        home = self.environ.get("HOME", "")
        if home and (text == "~" or text.startswith("~/")):
            text = home + text[1:]
        if os.path.isabs(text) and ".." not in text.split("/"):
            return text
        if _WINDOWS.match(text):
            return text
        return os.path.normpath(os.path.join(self.base, text))


def expand(node: Node, place: Place) -> Seq:
    """Every entry in the long form (type, source, target, read_only and the options of the type)."""
    assert isinstance(node, Seq)
    return Seq(tuple(_entry(item, place) for item in node.items), node.at, node.tag)


def _entry(item: Node, place: Place) -> Map:
    if isinstance(item, Map):
        return _long(item, place)
    assert isinstance(item, Scalar)
    return _short(item, place)


def _is_path(source: str) -> bool:
    return source.startswith((".", "/", "~", "\\")) or bool(_WINDOWS.match(source))


def _short(node: Scalar, place: Place) -> Map:
    text = scalar_text(node.value)
    drive = text[:2] if _WINDOWS_SHORT.match(text) else ""
    parts = text[len(drive) :].split(":")
    if drive:
        parts[0] = drive + parts[0]
    if not text or len(parts) > 3 or not all(parts):
        raise fail(node.at, f"'{text}' is not a volume", _HINT)
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    bind = _is_path(source)
    items: dict[str, Node] = {"type": Scalar("bind" if bind else "volume", node.at)}
    if source:
        items["source"] = Scalar(place.path(source) if bind else source, node.at)
    items["target"] = Scalar(_clean(target), node.at)
    options: dict[str, Node] = {"create_host_path": Scalar(True, node.at)} if bind else {}
    for option in parts[2].split(",") if len(parts) > 2 else ():
        if option == "ro":
            items["read_only"] = Scalar(True, node.at)
        elif option in ("z", "Z"):
            options["selinux"] = Scalar(option, node.at)
        elif option == "nocopy" and not bind:
            options["nocopy"] = Scalar(True, node.at)
        elif option in _PROPAGATION and bind:
            options["propagation"] = Scalar(option, node.at)
        # The rest (rw, cached, delegated, consistent) changes nothing, and Compose passes over unknown ones too.
    items["bind" if bind else "volume"] = Map(options, node.at)
    return Map(items, node.at)


def _clean(target: str) -> str:
    return os.path.normpath(target) if target.startswith("/") else target


def _long(node: Map, place: Place) -> Map:
    changed: dict[str, Node] = {}
    target = node.get("target")
    if target is not None:
        changed["target"] = Scalar(_clean(text_of(target, "target")), target.at)
    kind_of = text_of(node.items["type"], "type")
    source = node.get("source")
    if kind_of == "bind":
        if source is None:
            raise fail(node.at, "a bind mount needs the key 'source'", _HINT)
        changed["source"] = Scalar(place.path(text_of(source, "source")), source.at)
        options = node.get("bind")
        if options is not None and not (isinstance(options, Map) and options.items):
            node = node.without("bind")
    elif kind_of == "volume" and "volume" not in node.items:
        changed["volume"] = Map({}, node.at)
    tmpfs = node.get("tmpfs")
    if isinstance(tmpfs, Map) and (limit := tmpfs.get("size")) is not None:
        changed["tmpfs"] = tmpfs.with_items({"size": Scalar(str(size(limit, "tmpfs.size")), limit.at)})
    return node.with_items(changed)
