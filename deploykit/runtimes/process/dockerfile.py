"""Reading a Dockerfile into instructions with line numbers. No decision about what can be honoured is taken here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploykit.errors import BuildFailed

KEYWORDS = frozenset(
    {
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
)

_HEREDOC = re.compile(r"<<-?\s*[\"']?[A-Za-z_]")
_DIRECTIVE = re.compile(r"^#\s*(syntax|escape|check)\s*=\s*(\S+)\s*$", re.IGNORECASE)
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|$)")
_VARIABLE = re.compile(r"\\(\$)|\$(?:(\w+)|\{(\w+)(?:(:?[-+])((?:[^{}]|\{[^{}]*\})*))?\})")


@dataclass(frozen=True)
class Instruction:
    """One instruction. ``line`` counts from 1; ``text`` is what follows the keyword and its ``--flags``.

    ``exec_form`` is the JSON list, where the text is one; None is the shell form.
    """

    line: int
    keyword: str
    text: str
    flags: Mapping[str, str] = field(default_factory=dict)
    exec_form: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Stage:
    """One ``FROM`` and what follows it."""

    line: int
    base: str
    name: str | None
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Dockerfile:
    """``arguments`` are the ``ARG`` lines before the first ``FROM``."""

    name: str
    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]


def failed(name: str, line: int, message: str, hint: str = "") -> BuildFailed:
    return BuildFailed(f"{name}:{line}: {message}", hint=hint)


def parse(text: str, name: str = "Dockerfile") -> Dockerfile:
    """The stages of a Dockerfile. Raises BuildFailed with ``name:line``."""
    arguments: list[Instruction] = []
    stages: list[tuple[Instruction, list[Instruction]]] = []
    for instruction in _instructions(text, name):
        if instruction.keyword == "FROM":
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif instruction.keyword == "ARG":
            arguments.append(instruction)
        else:
            raise failed(name, instruction.line, f"{instruction.keyword} stands before the first FROM")
    if not stages:
        raise failed(name, 1, "there is no FROM line")
    return Dockerfile(name, tuple(arguments), tuple(_stage(name, head, body) for head, body in stages))


def _stage(name: str, head: Instruction, body: list[Instruction]) -> Stage:
    words = head.text.split()
    if len(words) == 1:
        return Stage(head.line, words[0], None, tuple(body))
    if len(words) == 3 and words[1].upper() == "AS":
        return Stage(head.line, words[0], words[2].lower(), tuple(body))
    raise failed(name, head.line, f"FROM takes IMAGE or IMAGE AS NAME, not {head.text!r}")


def _instructions(text: str, name: str) -> list[Instruction]:
    found: list[Instruction] = []
    for number, statement in _statements(text, name):
        keyword, _, rest = statement.partition(" ")
        keyword = keyword.upper()
        if keyword not in KEYWORDS:
            raise failed(name, number, f"unknown instruction {keyword!r}")
        if keyword in {"RUN", "COPY", "ADD"} and _HEREDOC.search(rest):
            raise failed(
                name,
                number,
                "heredocs (<<EOF) are not supported by the process runtime",
                "write it as ordinary lines, or run with --runtime docker",
            )
        rest, flags = _flags(keyword, rest.strip())
        if not rest:
            raise failed(name, number, f"{keyword} needs at least one argument")
        found.append(Instruction(number, keyword, rest, flags, _exec_form(name, number, keyword, rest)))
    return found


def _statements(text: str, name: str) -> list[tuple[int, str]]:
    """Logical lines with the number of their first physical line: comments out, continuations joined."""
    escape = "\\"
    statements: list[tuple[int, str]] = []
    parts: list[str] = []
    first = 0
    directives = True
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if directives:
            directive = _DIRECTIVE.match(stripped)
            if directive:
                if directive[1].lower() == "escape":
                    escape = directive[2]
                continue
            directives = False
        if not stripped or stripped.startswith("#"):
            continue
        if not parts:
            first = number
        if raw.rstrip().endswith(escape):
            parts.append(raw.rstrip()[: -len(escape)])
            continue
        statements.append((first, " ".join("".join([*parts, raw]).strip().split("\t"))))
        parts = []
    if parts:
        statements.append((first, "".join(parts).strip()))
    return [(number, statement) for number, statement in statements if statement]


def _flags(keyword: str, rest: str) -> tuple[str, dict[str, str]]:
    flags: dict[str, str] = {}
    if keyword in {"FROM", "COPY", "ADD", "RUN", "HEALTHCHECK"}:
        while match := _FLAG.match(rest):
            key, value = match[1], match[2] or ""
            flags[key] = f"{flags[key]} {value}" if key in flags else value
            rest = rest[match.end() :]
    return rest.strip(), flags


def _exec_form(name: str, number: int, keyword: str, rest: str) -> tuple[str, ...] | None:
    if keyword not in {"CMD", "ENTRYPOINT", "RUN", "COPY", "ADD", "VOLUME", "SHELL"} or not rest.startswith("["):
        return None
    try:
        value = json.loads(rest)
    except json.JSONDecodeError as error:
        if keyword in {"RUN", "COPY", "ADD"}:
            return None  # a shell test `[ ... ]`, a glob `[ab].txt`
        raise failed(
            name,
            number,
            f"{keyword} is no valid JSON list: {error.msg}",
            'double quotes are needed: ["python", "x.py"]',
        ) from None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise failed(name, number, f"{keyword} takes a list of strings")
    return tuple(value)


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$NAME``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:+other}``; an unknown name is empty."""

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name, operator, word = match[2] or match[3], match[4], match[5]
        value = values.get(name)
        present = bool(value) if operator and operator.startswith(":") else value is not None
        if operator and operator.endswith("-"):
            return value or "" if present else expand(word, values)
        if operator and operator.endswith("+"):
            return expand(word, values) if present else ""
        return value or ""

    return _VARIABLE.sub(one, text)
