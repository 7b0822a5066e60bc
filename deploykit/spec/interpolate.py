"""Variables in values: ``$V ${V} ${V:-d} ${V-d} ${V:?e} ${V?e} ${V:+r} ${V+r}``, nested, and ``$$`` for a dollar.

A ``$`` that starts none of these stands for itself.

The forms are those of the Compose specification's chapter on interpolation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploykit.spec.model import Position, Warning
from deploykit.spec.nodes import Map, Node, Scalar, Seq, fail

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
MAX_NESTING = 50


class BadTemplate(ValueError):
    """A template that cannot be read. ``offset`` counts characters from its start."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


@dataclass
class Variables:
    """Where values come from; `unset` gathers the names that were asked for in vain, in order."""

    values: Mapping[str, str]
    unset: list[str] = field(default_factory=list)

    def substitute(self, text: str) -> str:
        """``text`` with every variable replaced. Raises `BadTemplate`."""
        if "$" not in text:
            return text
        result, _ = self._template(text, 0, nesting=0, live=True)
        return result

    def _template(self, text: str, start: int, *, nesting: int, live: bool) -> tuple[str, int]:
        """Read up to the end, or (nested) up to the closing brace, which is not consumed."""
        out: list[str] = []
        index = start
        while index < len(text):
            char = text[index]
            if nesting and char == "}":
                return "".join(out), index
            if char != "$":
                out.append(char)
                index += 1
                continue
            following = text[index + 1 : index + 2]
            if following == "$":
                out.append("$")
                index += 2
            elif following == "{":
                value, index = self._braced(text, index, nesting=nesting, live=live)
                out.append(value)
            elif found := _NAME.match(text, index + 1):
                out.append(self._plain(found[0], live=live))
                index = found.end()
            else:
                out.append("$")
                index += 1
        if nesting:
            raise BadTemplate(start, "a '${' without its '}'")
        return "".join(out), index

    def _braced(self, text: str, start: int, *, nesting: int, live: bool) -> tuple[str, int]:
        if nesting >= MAX_NESTING:
            raise BadTemplate(start, f"'${{' nested deeper than {MAX_NESTING}")
        found = _NAME.match(text, start + 2)
        if not found:
            raise BadTemplate(start, "no variable name after '${', expected letters, digits and '_'")
        name, index = found[0], found.end()
        if text[index : index + 1] == "}":
            return self._plain(name, live=live), index + 1
        operator = next((op for op in _OPERATORS if text.startswith(op, index)), None)
        if operator is None:
            if index >= len(text):
                raise BadTemplate(start, "a '${' without its '}'")
            raise BadTemplate(
                index, f"'{text[index]}' after '${{{name}', expected '}}' or one of {' '.join(_OPERATORS)}"
            )
        value = self.values.get(name)
        present = value is not None and (value != "" or operator[0] != ":")
        wanted = live and (present if operator[-1] == "+" else not present)
        try:
            argument, end = self._template(text, index + len(operator), nesting=nesting + 1, live=wanted)
        except BadTemplate as error:
            if error.message == "a '${' without its '}'":
                error.offset = start
            raise
        if operator[-1] == "+":
            return (argument if wanted else ""), end + 1
        if operator[-1] == "-" or not wanted:
            return (argument if wanted else value or ""), end + 1
        state = "empty" if value == "" else "not set"
        raise BadTemplate(start, f"the required variable {name} is {state}" + (f": {argument}" if argument else ""))

    def _plain(self, name: str, *, live: bool) -> str:
        value = self.values.get(name)
        if value is None:
            if live and name not in self.unset:
                self.unset.append(name)
            return ""
        return value


@dataclass
class Interpolator:
    """Replaces the variables of whole trees and warns once of each one that is not set."""

    values: Mapping[str, str]
    warnings: list[Warning] = field(default_factory=list)
    _warned: set[str] = field(default_factory=set)

    def node(self, node: Node) -> Node:
        if isinstance(node, Map):
            return Map({k: self.node(v) for k, v in node.items.items()}, node.at, node.keys, node.tag)
        if isinstance(node, Seq):
            return Seq(tuple(self.node(item) for item in node.items), node.at, node.tag)
        if not isinstance(node.value, str) or "$" not in node.value:
            return node
        variables = Variables(self.values)
        try:
            text = variables.substitute(node.value)
        except BadTemplate as error:
            hint = "" if error.message.startswith("the required") else "a literal dollar sign is written '$$'"
            raise fail(_inside(node, error.offset), error.message, hint) from None
        for name in variables.unset:
            if name not in self._warned:
                self._warned.add(name)
                self.warnings.append(Warning(node.at, f"the variable {name} is not set, an empty string stands for it"))
        return Scalar(text, node.at, node.tag, node.inset)


def _inside(node: Scalar, offset: int) -> Position:
    """The place of a character of a scalar; the scalar's own place where it spans lines."""
    if isinstance(node.value, str) and "\n" in node.value:
        return node.at
    return Position(node.at.file, node.at.line, node.at.column + node.inset + offset)
