"""Environment files (``.env``, ``env_file``) as Compose reads them: quotes, escapes, comments, variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from deploykit.errors import SpecError
from deploykit.spec.interpolate import BadTemplate, Variables
from deploykit.spec.model import Position
from deploykit.spec.nodes import MAX_BYTES, fail

_KEY = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.\-\[\]]*)[ \t]*(=|:|(?=[\r\n#])|\Z)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "b": "\b", "a": "\a", "v": "\v", '"': '"', "\\": "\\", "'": "'"}


def read(path: Path, environ: Mapping[str, str], *, at: Position | None = None, raw: bool = False) -> dict[str, str]:
    """The variables of a file. ``at`` is where the file was asked for; ``raw`` takes values as they stand.

    Raises `SpecError` where the file is missing, unreadable or broken.
    """
    where = at or Position(str(path), 1, 1)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise fail(where, f"the env file {path} is larger than {MAX_BYTES // 1024 // 1024} MiB")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise fail(where, f"the env file {path} is not there") from None
    except UnicodeDecodeError:
        raise fail(where, f"the env file {path} is not UTF-8 text") from None
    except ValueError:
        raise fail(where, f"the env file {str(path)!r} has no usable name") from None
    except OSError as error:
        raise fail(where, f"the env file {path} cannot be read: {error.strerror}") from None
    return parse(text, environ, file=str(path), raw=raw)


def parse(text: str, environ: Mapping[str, str], *, file: str = ".env", raw: bool = False) -> dict[str, str]:
    """The variables of a text, in order. A name without ``=`` takes its value from ``environ``, if there is one."""
    return _Parser(text.replace("\r\n", "\n"), environ, file, raw).run()


class _Parser:
    def __init__(self, text: str, environ: Mapping[str, str], file: str, raw: bool) -> None:
        self.text = text
        self.environ = environ
        self.file = file
        self.raw = raw
        self.found: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        index = 0
        while index < len(self.text):
            if self.text[index] in " \t\r\n":
                index += 1
            elif self.text[index] == "#":
                index = self._line_end(index)
            else:
                index = self._entry(index)
        return self.found

    def _error(self, index: int, message: str) -> SpecError:
        line = self.text.count("\n", 0, index) + 1
        column = index - (self.text.rfind("\n", 0, index) + 1) + 1
        return fail(Position(self.file, line, column), message)

    def _line_end(self, index: int) -> int:
        end = self.text.find("\n", index)
        return len(self.text) if end < 0 else end

    def _entry(self, index: int) -> int:
        found = _KEY.match(self.text, index)
        if not found:
            line = self.text[index : self._line_end(index)]
            raise self._error(index, f"expected NAME=VALUE, not '{line}'")
        name, index = found[1], found.end()
        if not found[2]:
            if name in self.environ:
                self.found[name] = self.environ[name]
            return self._line_end(index)
        while self.text[index : index + 1] in (" ", "\t"):
            index += 1
        if self.raw:
            end = self._line_end(index)
            self.found[name] = self.text[index:end]
            return end
        quote = self.text[index : index + 1]
        if quote in ("'", '"'):
            self.found[name], index = self._quoted(index, quote)
            return index
        end = self._line_end(index)
        self.found[name] = self._expand(self._uncommented(self.text[index:end]), index)
        return end

    @staticmethod
    def _uncommented(value: str) -> str:
        comment = re.search(r"(^|[ \t])#", value)
        return (value[: comment.start()] if comment else value).strip()

    def _quoted(self, start: int, quote: str) -> tuple[str, int]:
        index = start + 1
        out: list[str] = []
        while index < len(self.text) and self.text[index] != quote:
            char = self.text[index]
            if char == "\\" and index + 1 < len(self.text):
                following = self.text[index + 1]
                if quote == '"':
                    escaped = "$$" if following == "$" else _ESCAPES.get(following, "\\" + following)
                    out.append(escaped)
                    index += 2
                    continue
                if following == "'":
                    out.append("'")
                    index += 2
                    continue
            out.append(char)
            index += 1
        if index >= len(self.text):
            raise self._error(start, f"the quote {quote} is not closed")
        rest = self.text[index + 1 : self._line_end(index)]
        if rest.strip() and not rest.strip().startswith("#"):
            raise self._error(index + 1, f"unexpected '{rest.strip()}' after the closing quote")
        value = "".join(out)
        return (self._expand(value, start) if quote == '"' else value), self._line_end(index)

    def _expand(self, value: str, index: int) -> str:
        try:
            return Variables({**self.found, **self.environ}).substitute(value)
        except BadTemplate as error:
            raise self._error(index, error.message) from None
