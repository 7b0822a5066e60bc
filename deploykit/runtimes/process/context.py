"""The build context: which files there are once `.dockerignore` has spoken, and what a COPY takes from them."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import BuildFailed


@dataclass(frozen=True)
class Entry:
    """One file of the context to be copied: ``source`` on this machine, ``target`` absolute in the image."""

    source: Path
    target: str
    chmod: int | None = None


def ignored(text: str) -> Callable[[str], bool]:
    """A test of `/`-separated relative paths against the lines of a `.dockerignore`: the last match decides."""
    rules: list[tuple[re.Pattern[str], bool]] = []
    for line in text.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keep = pattern.startswith("!")
        pattern = posixpath.normpath(pattern.lstrip("!").strip().lstrip("/"))
        if pattern != ".":
            rules.append((re.compile(_translate(pattern) + r"(?:/.*)?\Z"), keep))

    def test(path: str) -> bool:
        out = False
        for rule, keep in rules:
            if rule.match(path):
                out = not keep
        return out

    return test


def _translate(pattern: str) -> str:
    out, i = "", 0
    while i < len(pattern):
        if pattern.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif pattern.startswith("**", i):
            out, i = out + ".*", i + 2
        elif pattern[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif pattern[i] == "?":
            out, i = out + "[^/]", i + 1
        elif pattern[i] == "[" and "]" in pattern[i:]:
            end = pattern.index("]", i)
            out, i = out + "[" + pattern[i + 1 : end].replace("\\", r"\\") + "]", end + 1
        else:
            out, i = out + re.escape(pattern[i]), i + 1
    return out


class Context:
    """A folder, read once. Raises BuildFailed when it is missing."""

    def __init__(self, folder: Path, dockerfile: Path) -> None:
        if not folder.is_dir():
            raise BuildFailed(f"the build context {folder} is no folder", hint="check `build.context`")
        self.folder = folder
        own = dockerfile.with_name(dockerfile.name + ".dockerignore")
        ignore = own if own.is_file() else folder / ".dockerignore"
        test = ignored(ignore.read_text(encoding="utf-8") if ignore.is_file() else "")
        self.files: list[str] = []
        self.folders: set[str] = {""}
        for parent, names, files in os.walk(folder, followlinks=False):
            relative = Path(parent).relative_to(folder).as_posix()
            prefix = "" if relative == "." else relative + "/"
            if prefix == "":
                names[:] = [n for n in names if n != ".deploykit"]
            self.folders.update(prefix + n for n in names if not test(prefix + n))
            links = [n for n in names if (Path(parent) / n).is_symlink()]
            self.files += [prefix + n for n in [*files, *links] if not test(prefix + n)]
        self.files.sort()

    def select(self, sources: tuple[str, ...], target: str, chmod: int | None, where: str) -> list[Entry]:
        """What ``COPY sources target`` copies, as Docker does it. Raises BuildFailed; ``where`` opens its message."""
        entries: list[Entry] = []
        for source in sources:
            pattern = posixpath.normpath(source.lstrip("/") or ".")
            if pattern.startswith(".."):
                raise BuildFailed(f"{where}: COPY {source}: it lies outside the build context {self.folder}")
            found = self._select(pattern, target, chmod)
            if not found and pattern not in self.folders and pattern != ".":
                raise BuildFailed(
                    f"{where}: COPY {source}: no such file in {self.folder}",
                    hint="check the spelling, and whether .dockerignore leaves it out",
                )
            entries += found
        return entries

    def _select(self, pattern: str, target: str, chmod: int | None) -> list[Entry]:
        if pattern == ".":
            return [Entry(self.folder / f, posixpath.join(target, f), chmod) for f in self.files]
        if pattern in self.files:
            matches, folders = [pattern], []
        else:
            rule = re.compile(_translate(pattern) + r"\Z")
            matches = [f for f in self.files if rule.match(f)]
            folders = sorted(f for f in self.folders if f and rule.match(f))
        inside = target.endswith("/") or len(matches) + len(folders) > 1
        entries = [
            Entry(self.folder / f, posixpath.join(target, posixpath.basename(f)) if inside else target, chmod)
            for f in matches
        ]
        for folder in folders:  # Docker copies what is in a folder, not the folder
            entries += [
                Entry(self.folder / f, posixpath.join(target, f[len(folder) + 1 :]), chmod)
                for f in self.files
                if f.startswith(folder + "/")
            ]
        return entries
