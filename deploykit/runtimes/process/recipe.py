"""Instructions -> the recipe of a release: which files, which installs, which environment and command. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from deploykit.errors import NotFound
from deploykit.runtimes.process.dockerfile import Dockerfile, Instruction, Stage, expand, failed

_BASE = re.compile(r"^(?:(?:docker\.io/)?(?:library/)?|(?:.*/)?deploykit/)(python|node)(?::([\w.-]+))?(?:@\S+)?$")
_SHELL_SYNTAX = re.compile(r"[;|<>`&()]|\$\(")
_USER_TOOLS = frozenset({"useradd", "adduser", "groupadd", "addgroup", "usermod", "chown"})
_DOCKER = "run with --runtime docker, or take the line out"


@dataclass(frozen=True)
class Copy:
    """``sources``: paths or globs in the build context; ``target``: absolute in the image, a folder if '/' ends it."""

    line: int
    sources: tuple[str, ...]
    target: str
    chmod: int | None = None


@dataclass(frozen=True)
class Install:
    """``pip install ARGUMENTS`` or ``npm ci|install ARGUMENTS``, run in ``folder`` of the image."""

    line: int
    tool: Literal["pip", "npm"]
    arguments: tuple[str, ...]
    folder: str


@dataclass(frozen=True)
class Folder:
    """``mkdir -p PATH`` (and what WORKDIR makes)."""

    line: int
    path: str


@dataclass(frozen=True)
class Mode:
    """``chmod MODE PATHS``; ``mode`` is octal or like ``+x``."""

    line: int
    mode: str
    paths: tuple[str, ...]


StepOf = Copy | Install | Folder | Mode


@dataclass(frozen=True)
class Recipe:
    """Everything a release is made from, except the files' content. ``skipped`` says what was left out, and why."""

    language: Literal["python", "node"]
    language_version: str
    steps: tuple[StepOf, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    stop_signal: str | None = None
    skipped: tuple[str, ...] = ()


def compose(dockerfile: Dockerfile, arguments: Mapping[str, str], target: str | None = None) -> Recipe:
    """The recipe of stage ``target`` (None: the last). Raises BuildFailed with the line; NotFound for no such stage."""
    globals_ = _global_arguments(dockerfile, arguments)
    stage = _find(dockerfile, target)
    chain: list[Stage] = []
    while True:
        chain.insert(0, stage)
        base = expand(stage.base, globals_)
        earlier = [s for s in dockerfile.stages if s.line < stage.line and s.name == base.lower()]
        if not earlier:
            break
        stage = earlier[-1]
    match = _BASE.match(base)
    if not match:
        raise failed(
            dockerfile.name,
            stage.line,
            f"FROM {base}: the process runtime knows the bases deploykit/python, deploykit/node, python and node",
            "build on one of these, or run with --runtime docker",
        )
    language: Literal["python", "node"] = "python" if match[1] == "python" else "node"
    version = re.match(r"\d+(\.\d+)?", match[2] or "")
    recipe = Recipe(language, version[0] if version else "")
    # What the bases set themselves
    if language == "python":
        recipe = replace(recipe, environment={"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    elif "deploykit/" in base:
        recipe = replace(recipe, environment={"NODE_ENV": "production"})
    for part in chain:
        recipe = _Reader(dockerfile.name, arguments, globals_, recipe).read(part)
    return recipe


def _global_arguments(dockerfile: Dockerfile, given: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for instruction in dockerfile.arguments:
        for word in instruction.text.split():
            key, _, default = word.partition("=")
            values[key] = given.get(key, expand(default.strip("\"'"), values))
    return values


def _find(dockerfile: Dockerfile, target: str | None) -> Stage:
    if target is None:
        return dockerfile.stages[-1]
    for index, stage in enumerate(dockerfile.stages):
        if target.lower() == stage.name or target == str(index):
            return stage
    names = ", ".join(s.name for s in dockerfile.stages if s.name) or "none has a name"
    raise NotFound(f"{dockerfile.name}: there is no stage {target!r}", hint=f"stages: {names}")


class _Reader:
    """Walks one stage; holds what ARG and ENV have set so far."""

    def __init__(self, name: str, given: Mapping[str, str], globals_: Mapping[str, str], recipe: Recipe) -> None:
        self.name = name
        self.given = given
        self.globals = globals_
        self.arguments: dict[str, str] = {}
        self.environment = dict(recipe.environment)
        self.recipe = recipe
        self.steps = list(recipe.steps)
        self.skipped = list(recipe.skipped)
        self.workdir = recipe.workdir
        self.command_set = False

    def read(self, stage: Stage) -> Recipe:
        for instruction in stage.instructions:
            getattr(self, f"_{instruction.keyword.lower()}")(instruction)
        return replace(
            self.recipe,
            steps=tuple(self.steps),
            environment=self.environment,
            workdir=self.workdir,
            skipped=tuple(self.skipped),
        )

    def _expanded(self, text: str) -> str:
        return expand(text, {**self.arguments, **self.environment})

    def _words(self, instruction: Instruction, text: str | None = None) -> list[str]:
        try:
            return shlex.split(self._expanded(instruction.text if text is None else text))
        except ValueError as error:
            raise failed(self.name, instruction.line, f"{instruction.keyword}: {error}") from None

    def _path(self, text: str) -> str:
        joined = posixpath.join(self.workdir, text)
        path = posixpath.normpath("/" + joined.lstrip("/"))
        return path + "/" if text.endswith(("/", "/.")) or text in {".", ".."} else path

    def _skip(self, instruction: Instruction, why: str, what: str = "") -> None:
        self.skipped.append(f"{self.name}:{instruction.line}: {what or instruction.keyword} left out: {why}")

    # What sets values

    def _arg(self, instruction: Instruction) -> None:
        for word in self._words(instruction):
            key, equals, default = word.partition("=")
            if key in self.given:
                self.arguments[key] = self.given[key]
            elif equals:
                self.arguments[key] = default
            elif key in self.globals:
                self.arguments[key] = self.globals[key]

    def _env(self, instruction: Instruction) -> None:
        first = instruction.text.split(None, 1)
        if "=" not in first[0]:
            if len(first) != 2:
                raise failed(self.name, instruction.line, "ENV needs a value", "write ENV NAME=value")
            self.environment[first[0]] = self._expanded(first[1].strip())
            return
        added: dict[str, str] = {}
        for word in self._words(instruction):
            key, equals, value = word.partition("=")
            if not equals or not key:
                raise failed(self.name, instruction.line, f"ENV: {word!r} is not NAME=value")
            added[key] = value
        self.environment.update(added)

    def _workdir(self, instruction: Instruction) -> None:
        self.workdir = self._path(self._expanded(instruction.text.strip("\"'"))).rstrip("/") or "/"
        self.steps.append(Folder(instruction.line, self.workdir))

    def _cmd(self, instruction: Instruction) -> None:
        self.recipe = replace(self.recipe, command=_command(instruction))
        self.command_set = True

    def _entrypoint(self, instruction: Instruction) -> None:
        # As in Docker: an ENTRYPOINT empties the CMD that came with the base
        command = self.recipe.command if self.command_set else ()
        self.recipe = replace(self.recipe, entrypoint=_command(instruction), command=command)

    def _stopsignal(self, instruction: Instruction) -> None:
        self.recipe = replace(self.recipe, stop_signal=self._expanded(instruction.text))

    # What is left out, with the reason

    def _label(self, instruction: Instruction) -> None:
        pass

    def _expose(self, instruction: Instruction) -> None:
        pass  # the port comes from the Compose file, and replicas listen on PORT

    def _maintainer(self, instruction: Instruction) -> None:
        pass

    def _user(self, instruction: Instruction) -> None:
        self._skip(instruction, "processes run as the user who started deploykit")

    def _volume(self, instruction: Instruction) -> None:
        self._skip(instruction, "a plain process has no volumes of its own")

    def _healthcheck(self, instruction: Instruction) -> None:
        if instruction.text.strip().upper() != "NONE":
            self._skip(instruction, "put it in the Compose file: `healthcheck`, or x-deploykit.health")

    # What is refused

    def _shell(self, instruction: Instruction) -> None:
        raise failed(self.name, instruction.line, "SHELL is not supported by the process runtime", _DOCKER)

    def _onbuild(self, instruction: Instruction) -> None:
        raise failed(self.name, instruction.line, "ONBUILD is not supported by the process runtime", _DOCKER)

    # What makes files

    def _add(self, instruction: Instruction) -> None:
        words = list(instruction.exec_form or self._words(instruction))
        remote = [w for w in words[:-1] if "://" in w or w.startswith("git@")]
        packed = [w for w in words[:-1] if re.search(r"\.(tar(\.\w+)?|tgz|tbz2|txz)$", w)]
        if remote or packed:
            raise failed(
                self.name,
                instruction.line,
                f"ADD {(remote or packed)[0]}: the process runtime adds plain files and folders only",
                "put the files into the build context and COPY them, or run with --runtime docker",
            )
        self._copy(instruction)

    def _copy(self, instruction: Instruction) -> None:
        if "from" in instruction.flags:
            raise failed(
                self.name,
                instruction.line,
                f"COPY --from={instruction.flags['from']} is not supported by the process runtime",
                "build in one stage, or run with --runtime docker",
            )
        unknown = set(instruction.flags) - {"chown", "chmod", "link"}
        if unknown:
            raise failed(self.name, instruction.line, f"COPY --{min(unknown)} is not supported here", _DOCKER)
        if instruction.exec_form is not None:
            words = [self._expanded(word) for word in instruction.exec_form]
        else:
            words = self._words(instruction)
        if len(words) < 2:
            raise failed(self.name, instruction.line, "COPY needs a source and a target")
        mode = instruction.flags.get("chmod")
        if mode is not None and not re.fullmatch(r"[0-7]{3,4}", mode):
            raise failed(
                self.name, instruction.line, f"COPY --chmod={mode}: only octal modes are supported", "--chmod=755"
            )
        target = self._path(words[-1])
        if len(words) > 2 and not target.endswith("/"):
            raise failed(self.name, instruction.line, f"COPY of several sources needs a folder: write {words[-1]}/")
        self.steps.append(Copy(instruction.line, tuple(words[:-1]), target, int(mode, 8) if mode else None))

    def _run(self, instruction: Instruction) -> None:
        mounts = instruction.flags.get("mount", "").split()
        if any("type=cache" not in mount for mount in mounts) or set(instruction.flags) - {"mount"}:
            raise failed(self.name, instruction.line, "RUN takes no option but --mount=type=cache here", _DOCKER)
        if instruction.exec_form is not None:
            self._command(instruction, [self._expanded(word) for word in instruction.exec_form])
            return
        folder = self.workdir
        for part in instruction.text.split("&&"):
            if _SHELL_SYNTAX.search(part):
                raise self._unable(instruction, part.strip())
            self._command(instruction, self._words(instruction, part))
        self.workdir = folder  # a `cd` lasts for its own RUN only

    def _command(self, instruction: Instruction, words: list[str]) -> None:
        if words[:1] in (["python"], ["python3"]) and words[1:3] == ["-m", "pip"]:
            words = words[2:]
        line = instruction.line
        match words:
            case [("pip" | "pip3"), "install", *arguments]:
                self.steps.append(Install(line, "pip", tuple(arguments), self.workdir))
            case ["npm", ("ci" | "install" | "i") as verb, *arguments]:
                packages = [a for a in arguments if not a.startswith("-")]
                if packages:
                    raise failed(
                        self.name,
                        line,
                        f"npm {verb} {packages[0]}: only what package.json names can be installed",
                        "add the package to package.json",
                    )
                self.steps.append(Install(line, "npm", ("ci" if verb == "ci" else "install", *arguments), self.workdir))
            case ["npm", "cache", "clean", *_] | ["pip", "cache", *_]:
                pass
            case ["mkdir", *arguments]:
                for path in _operands(arguments, with_value=("-m", "--mode")):
                    self.steps.append(Folder(line, self._path(path).rstrip("/") or "/"))
            case ["chmod", *arguments]:
                operands = _operands(arguments, with_value=())
                if len(operands) < 2 or not re.fullmatch(r"[0-7]{3,4}|[ugoa]*\+[rwx]+", operands[0]):
                    raise self._unable(instruction, shlex.join(words))
                self.steps.append(Mode(line, operands[0], tuple(self._path(p) for p in operands[1:])))
            case ["cd", path]:
                self.workdir = self._path(path).rstrip("/") or "/"
            case [tool, *_] if tool in _USER_TOOLS:
                self._skip(instruction, "processes run as the user who started deploykit", tool)
            case ["true"] | []:
                pass
            case _:
                raise self._unable(instruction, shlex.join(words))

    def _unable(self, instruction: Instruction, what: str) -> Exception:
        return failed(
            self.name,
            instruction.line,
            f"RUN {what}: the process runtime runs only pip install, npm ci|install, mkdir, chmod and user commands",
            _DOCKER,
        )


def _operands(arguments: list[str], with_value: tuple[str, ...]) -> list[str]:
    """``arguments`` without options and the values of those in ``with_value``."""
    found: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in with_value:
            skip = True
        elif not argument.startswith("-"):
            found.append(argument)
    return found


def _command(instruction: Instruction) -> tuple[str, ...]:
    if instruction.exec_form is not None:
        return instruction.exec_form
    return ("/bin/sh", "-c", instruction.text)
