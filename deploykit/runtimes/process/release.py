"""Releases: what the process runtime has in place of images.

``.images/HASH/`` holds ``fs/`` (the image's file system, as far as the Dockerfile made it) and ``release.json``;
installed packages stand beside it in ``.images/deps-HASH/``, so that releases with the same requirements share them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock

from deploykit.errors import BuildFailed, NotFound
from deploykit.runtimes.process import toolchain
from deploykit.runtimes.process.context import Context, Entry
from deploykit.runtimes.process.recipe import Copy, Folder, Install, Mode, Recipe

FORMAT = 1  # part of every hash: raise it when the layout of a release changes
_REFERENCE = re.compile(r"process:[^:]+:([0-9a-f]{12})\Z")
Lines = Callable[[str], None]


@dataclass(frozen=True)
class Release:
    """A finished release. ``path`` are the folders of its programs, first wins."""

    folder: Path
    environment: dict[str, str]
    workdir: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    stop_signal: str | None
    path: tuple[str, ...]

    def locate(self, path: str) -> Path:
        """Where the image's absolute ``path`` lies on this machine."""
        return self.folder / "fs" / path.lstrip("/")

    def translate(self, word: str) -> str:
        """``word``, with an absolute path that the release contains replaced by where it lies."""
        if word.startswith("/") and word != "/" and not word.startswith("//"):
            located = self.locate(word)
            if located.exists():
                return str(located)
        return word


class Releases:
    """The releases below ``folder``. Safe to use from several threads and commands at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, reference: str) -> Release:
        """Raises NotFound."""
        match = _REFERENCE.match(reference)
        folder = self.folder / match[1] if match else self.folder
        try:
            data = json.loads((folder / "release.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise NotFound(f"there is no release {reference}", hint="run `deploykit build`") from None
        return Release(
            folder, data["environment"], data["workdir"], tuple(data["entrypoint"]), tuple(data["command"]),
            data["stop_signal"], tuple(data["path"]),
        )  # fmt: skip

    def make(self, service: str, recipe: Recipe, context: Context, name: str, on_line: Lines) -> str:
        """Make the release unless it exists; its reference. Raises BuildFailed."""
        choose = toolchain.python if recipe.language == "python" else toolchain.node
        interpreter = choose(recipe.language_version)
        if recipe.language_version and not (interpreter.version + ".").startswith(recipe.language_version + "."):
            on_line(f"{service}: {recipe.language} {recipe.language_version} is not here: using {interpreter.version}")
        for reason in recipe.skipped:
            on_line(f"{service}: {reason}")
        copies = {
            step: context.select(step.sources, step.target, step.chmod, f"{name}:{step.line}")
            for step in recipe.steps
            if isinstance(step, Copy)
        }
        digest = _digest(recipe, interpreter, copies)
        target = self.folder / digest
        reference = f"process:{service}:{digest}"
        if (target / "release.json").exists():
            return reference
        self._private()
        with FileLock(self.folder / f".{digest}.lock", timeout=toolchain.INSTALL_SECONDS):
            if not (target / "release.json").exists():
                work = self.folder / f".new-{digest}-{uuid.uuid4().hex[:8]}"
                try:
                    self._assemble(work, recipe, interpreter, copies, name, on_line)
                    shutil.rmtree(target, ignore_errors=True)
                    work.rename(target)
                except OSError as error:
                    raise BuildFailed(f"{name}: the release of {service} cannot be written: {error}") from None
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        on_line(f"{service}: made {reference}")
        return reference

    def _private(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _assemble(
        self, work: Path, recipe: Recipe, interpreter: toolchain.Interpreter, copies: dict[Copy, list[Entry]],
        name: str, on_line: Lines,
    ) -> None:  # fmt: skip
        fs = work / "fs"
        fs.mkdir(parents=True, mode=0o700)
        pip_so_far: list[Install] = []
        path: list[str] = []
        for step in recipe.steps:
            where = f"{name}:{step.line}"
            match step:
                case Folder():
                    _inside(fs, step.path, where).mkdir(parents=True, exist_ok=True)
                case Copy():
                    for entry in copies[step]:
                        _copy(fs, entry, step, where)
                case Mode():
                    for each in step.paths:
                        _chmod(_inside(fs, each, where), step.mode, where)
                case Install(tool="pip"):
                    if recipe.language != "python":
                        raise BuildFailed(f"{where}: pip install needs a Python base")
                    pip_so_far.append(step)
                case Install():
                    self._npm(fs, step, interpreter, recipe, where, on_line)
                    path.insert(0, str(Path(step.folder.lstrip("/")) / "node_modules" / ".bin"))
        if recipe.language == "python":
            venv = self._pip(fs, tuple(pip_so_far), interpreter, recipe, name, on_line)
            programs = [str(venv / "bin")]
        else:
            programs = [str(interpreter.program.parent)]
        final = self.folder / work.name.split("-")[1] / "fs"
        data = {
            "environment": dict(recipe.environment), "workdir": recipe.workdir, "entrypoint": recipe.entrypoint,
            "command": recipe.command, "stop_signal": recipe.stop_signal,
            "path": [*programs, *(str(final / p) for p in path)],
        }  # fmt: skip
        (fs / recipe.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (work / "release.json").write_text(json.dumps(data, indent=1), encoding="utf-8")

    @contextmanager
    def _shared(self, key: str) -> Iterator[tuple[Path, bool]]:
        """The folder ``deps-KEY`` and whether it is finished; finished once the block ends without an exception."""
        folder = self.folder / f"deps-{key}"
        done = folder / ".complete"
        with FileLock(self.folder / f".deps-{key}.lock", timeout=toolchain.INSTALL_SECONDS):
            if done.exists():
                yield folder, True
                return
            shutil.rmtree(folder, ignore_errors=True)
            try:
                yield folder, False
                done.touch()
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def _pip(
        self, fs: Path, steps: tuple[Install, ...], interpreter: toolchain.Interpreter, recipe: Recipe, name: str,
        on_line: Lines,
    ) -> Path:  # fmt: skip
        """The virtual environment of these installs. It is made in its final place: its programs name their path."""
        key = hashlib.sha256(f"{FORMAT} {interpreter}".encode())
        for step in steps:
            key.update(json.dumps(step.arguments).encode())
            folder = _inside(fs, step.folder, name)
            for argument in step.arguments:
                _hash_operand(key, fs, folder, argument)
        with self._shared(key.hexdigest()[:12]) as (venv, finished):
            if not finished:
                toolchain.make_venv(interpreter, venv, name)
                for step in steps:
                    folder = _inside(fs, step.folder, name)
                    arguments = tuple(_translate(fs, a) for a in step.arguments)
                    extra = {k: v for k, v in recipe.environment.items() if k.startswith("PIP_")}
                    where = f"{name}:{step.line}"
                    on_line(f"{where}: pip install {' '.join(step.arguments)}")
                    toolchain.pip_install(venv, arguments, folder, where, on_line, extra)
        return venv

    def _npm(
        self, fs: Path, step: Install, interpreter: toolchain.Interpreter, recipe: Recipe, where: str, on_line: Lines
    ) -> None:
        """Install beside the release, and link `node_modules` to it."""
        extra = {k: v for k, v in recipe.environment.items() if k == "NODE_ENV" or k.lower().startswith("npm_config_")}
        folder = _inside(fs, step.folder, where)
        files = [f for n in ("package.json", "package-lock.json", ".npmrc") if (f := folder / n).is_file()]
        if not (folder / "package.json").is_file():
            raise BuildFailed(f"{where}: there is no package.json in {step.folder}", hint="COPY it before this line")
        key = hashlib.sha256(f"{FORMAT} {interpreter} {step.arguments} {sorted(extra.items())}".encode())
        for file in files:
            key.update(file.name.encode() + file.read_bytes())
        with self._shared(key.hexdigest()[:12]) as (shared, finished):
            if not finished:
                shared.mkdir(mode=0o700)
                for file in files:
                    shutil.copy2(file, shared / file.name)
                on_line(f"{where}: npm {' '.join(step.arguments)}")
                toolchain.npm_install(interpreter, step.arguments, shared, where, on_line, extra)
                (shared / "node_modules").mkdir(exist_ok=True)
        (folder / "node_modules").symlink_to(shared / "node_modules", target_is_directory=True)


def _digest(recipe: Recipe, interpreter: toolchain.Interpreter, copies: dict[Copy, list[Entry]]) -> str:
    whole = hashlib.sha256(f"{FORMAT} {interpreter}".encode())
    plain = {k: v for k, v in asdict(recipe).items() if k not in {"skipped", "steps"}}
    whole.update(json.dumps(plain, sort_keys=True).encode())
    for step in recipe.steps:  # a step's line number is no part of what it makes
        values = {k: v for k, v in asdict(step).items() if k != "line"}
        whole.update(json.dumps([type(step).__name__, values], sort_keys=True).encode())
        for entry in copies.get(step, []) if isinstance(step, Copy) else []:
            whole.update(f"\0{entry.target}\0{_kind(entry.source)}\0".encode())
            whole.update(_content(entry.source))
    return whole.hexdigest()[:12]


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    return "link" if stat.S_ISLNK(mode) else "program" if mode & stat.S_IXUSR else "file"


def _content(path: Path) -> bytes:
    try:
        if path.is_symlink():
            return os.readlink(path).encode()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise BuildFailed(f"{path} cannot be read: {error.strerror}") from None


def _inside(fs: Path, path: str, where: str) -> Path:
    """The place of the image's ``path``. Refuses a way that leads out of the release over a symbolic link."""
    place = fs
    for part in PurePosixPath(path.lstrip("/")).parts:
        place = place / part
        if place.is_symlink() and not place.resolve().is_relative_to(fs.resolve()):
            raise BuildFailed(
                f"{where}: {path} leads over the link {part}, out of the release",
                hint="name it in .dockerignore (often node_modules)",
            )
    return place


def _copy(fs: Path, entry: Entry, step: Copy, where: str) -> None:
    target = _inside(fs, entry.target, where)
    if target.is_dir() and not target.is_symlink():
        target = target / entry.source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        target.unlink()
    shutil.copy2(entry.source, target, follow_symlinks=False)
    if entry.chmod is not None and not target.is_symlink():
        target.chmod(entry.chmod)


def _chmod(place: Path, mode: str, where: str) -> None:
    if not place.exists():
        raise BuildFailed(f"{where}: chmod: {place.name} does not exist")
    if mode.isdigit():
        place.chmod(int(mode, 8))
        return
    bits = 0
    who, _, what = mode.partition("+")
    for group, shift in (("u", 6), ("g", 3), ("o", 0)):
        if not who or group in who or "a" in who:
            bits |= sum({"r": 4, "w": 2, "x": 1}[c] for c in set(what)) << shift
    place.chmod(place.stat().st_mode | bits)


def _translate(fs: Path, argument: str) -> str:
    """An absolute path in a pip argument (``/app/requirements.txt``), as it lies in the release being made."""
    located = fs / argument.lstrip("/")
    return str(located) if argument.startswith("/") and located.exists() else argument


def _hash_operand(
    key: hashlib._Hash, fs: Path, folder: Path, argument: str, seen: frozenset[Path] = frozenset()
) -> None:
    """Mix in what a file or folder named by ``argument`` contains, requirement files named in it too."""
    argument = re.sub(r"^(-r|-c|--requirement=|--constraint=)(?=.)", "", argument)
    path = Path(_translate(fs, argument))
    path = path if path.is_absolute() else folder / argument.partition("[")[0]
    if path.is_file() and path not in seen:
        text = path.read_bytes()
        key.update(text)
        for line in text.decode(errors="replace").splitlines():
            match = re.match(r"\s*(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", line)
            if match:
                _hash_operand(key, fs, path.parent, match[1], seen | {path})
    elif path.is_dir() and argument not in {"", "/"}:
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            key.update(str(file.relative_to(path)).encode() + file.read_bytes())
