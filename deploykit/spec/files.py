"""Which files a project is read from, and their text."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploykit.errors import SpecError
from deploykit.spec.model import Position
from deploykit.spec.nodes import MAX_BYTES, fail

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
STDIN = Path("-")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


def find(start: Path, environ: Mapping[str, str]) -> list[Path]:
    """The project's files as Compose looks for them: COMPOSE_FILE, else the usual names here and in the parents."""
    listed = environ.get("COMPOSE_FILE", "")
    if listed:
        separator = environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        return [start / name for name in listed.split(separator) if name]
    for folder in (start, *start.parents):
        present = [folder / name for name in NAMES if (folder / name).is_file()]
        if present:
            stem, suffix = present[0].stem, present[0].suffix
            suffixes = dict.fromkeys((suffix, ".yaml", ".yml"))
            overrides = [folder / f"{stem}.override{ending}" for ending in suffixes]
            return [present[0], *[path for path in overrides if path.is_file()][:1]]
    raise SpecError(
        f"{start / NAMES[0]}:1:1: no Compose file here or in a folder above",
        hint=f"name one with -f, or make one of {', '.join(NAMES)}",
    )


def read(path: Path, *, at: Position | None = None) -> str:
    """A file's text (``-`` is standard input). ``at`` is where the file was asked for."""
    where = at or Position(str(path), 1, 1)
    if path == STDIN:
        return sys.stdin.read(MAX_BYTES + 1)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise fail(where, f"there is no file {path}", "check the path given with -f") from None
    except IsADirectoryError:
        raise fail(where, f"{path} is a folder, expected a file") from None
    except UnicodeDecodeError as error:
        raise fail(where, f"{path} is not UTF-8 text (byte {error.start})", "save the file as UTF-8") from None
    except ValueError:
        raise fail(where, f"{str(path)!r} is no usable file name") from None
    except OSError as error:
        raise fail(where, f"{path} cannot be read: {error.strerror}") from None


def show(path: Path) -> str:
    """A path as errors name it: as it was given."""
    return "<stdin>" if path == STDIN else str(path)


def project_name(
    asked: str | None, environ: Mapping[str, str], written: tuple[str, Position] | None, directory: Path
) -> str:
    """The name by Compose's precedence: -p, COMPOSE_PROJECT_NAME, ``name:``, the folder's name."""
    rule = "a project name has a-z, 0-9, '-' and '_' and starts with a letter or a digit"
    for source, name in (("-p", asked), ("COMPOSE_PROJECT_NAME", environ.get("COMPOSE_PROJECT_NAME"))):
        if name:
            if not _NAME.match(name):
                raise SpecError(f"{source}: '{name}' is not a project name", hint=f"{rule}, like '{normalise(name)}'")
            return name
    if written and written[0]:
        name, at = written
        if not normalise(name):
            raise fail(at, f"'{name}' is not a project name", rule)
        return normalise(name)
    name = normalise(directory.name)
    if not name:
        raise SpecError(f"{directory}: no project name can be made of the folder's name", hint="give one with -p")
    return name


def normalise(name: str) -> str:
    """Lower case, only a-z 0-9 - and _, no leading - or _."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-")


def sequence(files: Sequence[Path] | None, start: Path, environ: Mapping[str, str]) -> list[Path]:
    """The given files, or those that are found."""
    return list(files) if files else find(start, environ)
