"""Is this a Compose file? `schema.json` holds the Compose specification's keys and types, in our own words."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

from deploykit.errors import SpecError
from deploykit.spec.model import Position
from deploykit.spec.nodes import Map, Node, Seq, fail, kind, plain

_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "a boolean",
    "null": "empty",
}


@cache
def _validator() -> Draft7Validator:
    text = resources.files("deploykit.spec").joinpath("schema.json").read_text(encoding="utf-8")
    return Draft7Validator(json.loads(text))


def check(document: Map) -> None:
    """Raise `SpecError` for the first fault of a file, by its place; the other faults are its details."""
    errors = [_describe(document, error) for error in _validator().iter_errors(plain(document))]
    if not errors:
        return
    errors.sort(key=lambda found: (found[0].line, found[0].column))
    at, message, hint = errors[0]
    others = tuple(f"{place}: {text}" for place, text, _ in errors[1:])
    raise SpecError(f"{at}: {message}", hint=hint, details=others)


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""


def unknown_key(at: Position, key: str, where: str, known: Iterable[str]) -> SpecError:
    """The error for a key that does not exist under ``where``."""
    names = sorted(known)
    place = f"under {where}" if where else "at the top level"
    near = nearest(key, names)
    return fail(at, f"unknown key '{key}' {place}{near}", "" if near else f"known keys: {', '.join(names)}")


def _describe(document: Map, error: ValidationError) -> tuple[Position, str, str]:
    path = list(error.absolute_path)
    node, at = _find(document, path)
    where = dotted(path)
    schema = error.schema if isinstance(error.schema, dict) else {}
    if error.validator == "additionalProperties" and isinstance(node, Map):
        properties = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        key = next(k for k in node.items if k not in properties and not any(re.search(p, k) for p in patterns))
        if not properties:
            return node.key_at(key), f"'{key}' is not a name for {where}", "use letters, digits, '.', '_' and '-'"
        fault = unknown_key(node.key_at(key), key, where, properties)
        return node.key_at(key), fault.message.removeprefix(f"{node.key_at(key)}: "), fault.hint
    subject = where or "a Compose file"
    expected: list[str] = _strings(error.validator_value)
    instance = plain(node)
    if error.validator == "type":
        wanted = expected
        names = [_TYPES[name] for name in wanted if name != "null"]
        found = kind(instance)
        hint = f'put it in quotes: "{instance}"' if "string" in wanted and found in _SCALARS else ""
        return at, f"{subject} must be {join_or(names)}, not {found}", hint
    if error.validator == "enum":
        names = expected
        near = nearest(str(instance), names)
        return at, f"{subject} must be one of {', '.join(names)}, not '{instance}'{near}", ""
    if error.validator == "required":
        missing = next(name for name in expected if isinstance(node, Map) and name not in node.items)
        return at, f"{subject} needs the key '{missing}'", ""
    return at, f"{subject}: {error.message}", ""


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


_SCALARS = ("a number", "a boolean")


def _find(document: Map, path: list[str | int]) -> tuple[Node, Position]:
    node: Node = document
    at = document.at
    for step in path:
        if isinstance(node, Map) and isinstance(step, str):
            at = node.key_at(step)
            node = node.items[step]
        elif isinstance(node, Seq) and isinstance(step, int):
            node = node.items[step]
            at = node.at
    return node, at


def dotted(path: Iterable[str | int]) -> str:
    """``services.web.ports[0]`` for a path of keys and indexes."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def join_or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
