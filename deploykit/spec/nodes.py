"""A YAML document as a tree of values that remember where they stand.

The scalars follow the YAML 1.2 core schema, so ``yes``, ``on`` and ``22:22`` are strings. One thing is as Compose has
it: an integer with a leading zero is octal (``mode: 0440``). Duplicate keys are errors, ``<<`` merges, and a document
is bounded in bytes, in depth and in the number of nodes its aliases expand to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import yaml

from deploykit.errors import SpecError
from deploykit.spec.model import Position

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 100
MAX_NODES = 200_000

_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_DIRECTIVES = ("!reset", "!override")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_OCTAL = re.compile(r"([-+]?)0o?([0-7]+)\Z")
_HEX = re.compile(r"([-+]?)0x([0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)\Z")

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. ``inset`` is the number of characters (a quote) between the position and the text."""

    value: Value
    at: Position
    tag: str = ""
    inset: int = 0


@dataclass(frozen=True, slots=True)
class Seq:
    items: tuple[Node, ...]
    at: Position
    tag: str = ""

    def __iter__(self) -> Iterator[Node]:
        return iter(self.items)


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping with string keys; ``keys`` holds each key's own position."""

    items: Mapping[str, Node]
    at: Position
    keys: Mapping[str, Position] = field(default_factory=dict)
    tag: str = ""

    def get(self, key: str) -> Node | None:
        """The value under ``key``; None where it is absent or null."""
        found = self.items.get(key)
        return None if isinstance(found, Scalar) and found.value is None else found

    def key_at(self, key: str) -> Position:
        return self.keys.get(key, self.at)

    def with_items(self, changed: Mapping[str, Node]) -> Map:
        """The same mapping with these keys set."""
        return Map({**self.items, **changed}, self.at, self.keys, self.tag)

    def without(self, *names: str) -> Map:
        return Map({k: v for k, v in self.items.items() if k not in names}, self.at, self.keys, self.tag)


Node = Scalar | Seq | Map
Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None


def fail(at: Position, message: str, hint: str = "") -> SpecError:
    """The error to raise for a fault at a position."""
    return SpecError(f"{at}: {message}", hint=hint)


def plain(node: Node | None) -> Plain:
    """The node's value without positions, as JSON has it."""
    if node is None:
        return None
    if isinstance(node, Map):
        return {key: plain(value) for key, value in node.items.items()}
    if isinstance(node, Seq):
        return [plain(item) for item in node.items]
    return node.value


def kind(node: Node | Plain) -> str:
    """What a person calls this kind of value."""
    value = node.value if isinstance(node, Scalar) else node
    if isinstance(value, Map | dict):
        return "a mapping"
    if isinstance(value, Seq | list):
        return "a list"
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    return "a number"


def resolve_scalar(text: str) -> Value:
    """A plain scalar's value by the YAML 1.2 core schema."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if text[0] not in "+-.0123456789":
        return text
    if _DECIMAL.match(text):
        return int(text) if len(text) < 64 else text
    for pattern, base in ((_OCTAL, 8), (_HEX, 16)):
        if (found := pattern.match(text)) and len(text) < 64:
            return int(found[1] + found[2], base)
    if _FLOAT.match(text):
        number = float(text)
        return number if math.isfinite(number) else text
    if _INFINITY.match(text):
        return -math.inf if text[0] == "-" else math.inf
    return text


def parse(text: str, file: str) -> Node:
    """The one document in ``text``. Raises `SpecError` with the place of what is broken."""
    if len(text.encode()) > MAX_BYTES:
        raise SpecError(f"{file}:1:1: the file is larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return _Composer(file).document(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise fail(at, f"this is not YAML: {reason}", "check the indentation, the quotes and the brackets") from None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise fail(Position(file, 1, 1), f"this is not YAML: {reason}", "save the file as UTF-8 text") from None


@dataclass
class _Open:
    """A collection whose end has not been read."""

    at: Position
    tag: str
    anchor: str | None
    mapping: bool
    nodes: list[Node] = field(default_factory=list)
    plain_merge: list[bool] = field(default_factory=list)
    size: int = 1


class _Composer:
    def __init__(self, file: str) -> None:
        self.file = file
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.root: Node | None = None

    def document(self, text: str) -> Node:
        documents = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise fail(self.at(event), "a second document starts here, one file holds one project")
            elif isinstance(event, yaml.NodeEvent):
                self.node_event(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.close()
        if self.root is None:
            raise fail(Position(self.file, 1, 1), "the file is empty", "a Compose file has at least `services:`")
        return self.root

    def at(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        if mark is None:
            return Position(self.file, 1, 1)
        return Position(self.file, mark.line + 1, mark.column + 1)

    def node_event(self, event: yaml.NodeEvent) -> None:
        at = self.at(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise fail(at, f"there is no anchor '&{event.anchor}' before this alias")
            node, size = self.anchors[event.anchor]
            self.add(node, size)
        elif isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event, at)
            is_merge = event.value == "<<" and event.implicit[0]
            self.remember(event.anchor, node, 1)
            self.add(node, 1, is_merge=is_merge)
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(self.stack) >= MAX_DEPTH:
                raise fail(at, f"nested deeper than {MAX_DEPTH} levels")
            tag = event.tag or ""
            mapping = isinstance(event, yaml.MappingStartEvent)
            if tag and tag not in _DIRECTIVES and not tag.startswith(_CORE):
                raise fail(at, f"unknown tag '{tag}', expected !reset or !override")
            self.stack.append(_Open(at, tag if tag in _DIRECTIVES else "", event.anchor, mapping))

    def scalar(self, event: yaml.ScalarEvent, at: Position) -> Scalar:
        text, tag = event.value, event.tag or ""
        inset = 1 if event.style in ("'", '"') else 0
        if tag in _DIRECTIVES:
            return Scalar(text if event.style else resolve_scalar(text), at, tag, inset)
        if event.implicit[0] or (tag.startswith(_CORE) and tag != f"{_CORE}str"):
            return Scalar(resolve_scalar(text), at, "", inset)
        if tag and not tag.startswith(_CORE) and tag != "!":
            raise fail(at, f"unknown tag '{tag}', expected !reset or !override")
        return Scalar(text, at, "", inset)

    def remember(self, anchor: str | None, node: Node, size: int) -> None:
        if anchor:
            self.anchors[anchor] = (node, size)

    def add(self, node: Node, size: int, *, is_merge: bool = False) -> None:
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        parent.nodes.append(node)
        parent.plain_merge.append(is_merge)
        parent.size += size
        if parent.size > MAX_NODES:
            raise fail(node.at, f"aliases expand to more than {MAX_NODES} values", "write the values out, or fewer")

    def close(self) -> None:
        done = self.stack.pop()
        node: Node = self.mapping(done) if done.mapping else Seq(tuple(done.nodes), done.at, done.tag)
        self.remember(done.anchor, node, done.size)
        self.add(node, done.size)

    def mapping(self, done: _Open) -> Map:
        own: dict[str, Node] = {}
        keys: dict[str, Position] = {}
        merged: list[Map] = []
        for index in range(0, len(done.nodes), 2):
            key, value = done.nodes[index], done.nodes[index + 1]
            if done.plain_merge[index]:
                merged.extend(_merge_sources(value))
                continue
            if not isinstance(key, Scalar):
                raise fail(key.at, f"a key must be a string, not {kind(key)}")
            name = scalar_text(key.value)
            if name in own:
                raise fail(key.at, f"the key '{name}' is here twice, first at line {keys[name].line}")
            own[name] = value
            keys[name] = key.at
        for source in merged:
            for name, value in source.items.items():
                if name not in own:
                    own[name] = value
                    keys[name] = source.key_at(name)
        return Map(own, done.at, keys, done.tag)


def _merge_sources(value: Node) -> list[Map]:
    sources = value.items if isinstance(value, Seq) else (value,)
    maps = [source for source in sources if isinstance(source, Map)]
    if len(maps) != len(sources):
        raise fail(value.at, f"`<<` merges a mapping or a list of mappings, not {kind(value)}")
    return maps


def scalar_text(value: Value) -> str:
    """A scalar as Compose writes it where a string is wanted (an environment value, a label)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)
