"""Images: built with the engine's classic builder over the API, or found and fetched."""

from __future__ import annotations

import os
import re
import tempfile
from collections import deque
from importlib import import_module
from pathlib import Path
from typing import Any

from docker.api.build import process_dockerfile
from docker.errors import APIError
from docker.utils.build import tar

from deploykit.errors import BuildFailed, NotFound
from deploykit.runtimes.base import Lines
from deploykit.runtimes.docker.engine import Engine, missing, reason, translated
from deploykit.spec.model import Build

SILENCE = 1800  # seconds one build step may say nothing
TAIL = 20  # output lines a BuildFailed carries
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE | re.MULTILINE)


def build(engine: Engine, build: Build, tag: str, on_line: Lines) -> str:
    """Build and tag; returns the image's id (``sha256:...``). Raises BuildFailed."""
    recipe = _recipe(build)
    for name in froms(recipe.read_text(errors="replace")):
        ensure_base(engine, name, on_line)
    with tempfile.TemporaryFile() as context:
        tar(
            build.context,
            exclude=ignored(build.context, recipe),
            dockerfile=(named := process_dockerfile(build.dockerfile, str(build.context))),
            fileobj=context,
        )
        context.seek(0)
        with translated(BuildFailed, f"cannot build {recipe}"):
            return run(
                engine.api.build(
                    fileobj=context,
                    custom_context=True,
                    dockerfile=named[0],
                    tag=tag,
                    buildargs=arguments(build),
                    target=build.target,
                    rm=True,
                    forcerm=True,
                    decode=True,
                    timeout=SILENCE,
                    network_mode=os.environ.get("DEPLOYKIT_BUILD_NETWORK"),
                ),
                str(recipe),
                on_line,
            )


def run(stream: Any, recipe: str, on_line: Lines) -> str:
    """Follow a build to its end; returns the image's id. Raises BuildFailed with the step that failed."""
    step, image = "", ""
    last: deque[str] = deque(maxlen=TAIL)
    for entry in stream:
        if "error" in entry:
            said = str(entry["error"]).strip()
            raise BuildFailed(f"{recipe}: {step or 'the build'} failed: {said}", details=tuple(last))
        image = (entry.get("aux") or {}).get("ID", image)
        for line in str(entry.get("stream") or entry.get("status") or "").splitlines():
            if not line.strip():
                continue
            step = line.strip() if line.startswith("Step ") else step
            last.append(line)
            on_line(line)
    if not image:
        raise BuildFailed(f"{recipe}: the engine ended the build without an image", details=tuple(last))
    return image


def arguments(build: Build) -> dict[str, str]:
    """The build's arguments over the proxy settings of this environment."""
    return {**{name: os.environ[name] for name in _PROXIES if name in os.environ}, **build.args}


def froms(text: str) -> tuple[str, ...]:
    """The images a Dockerfile starts from, in order and without repeats."""
    return tuple(dict.fromkeys(_FROM.findall(text)))


def ignored(context: Path, recipe: Path) -> list[str]:
    """The patterns kept out of the context: `.dockerignore`'s (the Dockerfile's own first), and our state."""
    for file in (recipe.with_name(recipe.name + ".dockerignore"), context / ".dockerignore"):
        if file.is_file():
            lines = (line.strip() for line in file.read_text().splitlines())
            return [*(line for line in lines if line and not line.startswith("#")), "**/.deploykit"]
    return ["**/.deploykit"]


def _recipe(build: Build) -> Path:
    recipe = build.context / build.dockerfile
    if not build.context.is_dir():
        raise BuildFailed(f"the build context {build.context} is not a folder")
    if not recipe.is_file():
        raise BuildFailed(f"there is no Dockerfile at {recipe}")
    return recipe


def ensure_base(engine: Engine, name: str, on_line: Lines) -> None:
    """Make `name` if it is one of deploykit's own base images and missing. Raises BuildFailed."""
    if not name.startswith("deploykit/") or find(engine, name) is not None:
        return
    bases: Any = import_module("deploykit.runtimes.docker.bases")  # late: it uses the engine too
    wanted = name if ":" in name else f"{name}:latest"
    base = next((base for base in bases.BASES if wanted in (base.image, f"{base.image}:latest")), None)
    if base is not None:
        on_line(f"making the base image {base.image}")
        bases.build(engine.client, base, on_line)


def find(engine: Engine, name: str) -> str | None:
    """The id of an image that is there, or None. Raises RuntimeUnavailable."""
    try:
        with translated(NotFound, name):
            return str(engine.api.inspect_image(name)["Id"])
    except NotFound:
        return None


def resolve(engine: Engine, name: str, on_line: Lines) -> str:
    """The id of `name`, made (our bases) or pulled where it is missing. Raises NotFound."""
    if found := find(engine, name):
        return found
    ensure_base(engine, name, on_line)
    if found := find(engine, name):
        return found
    try:
        _pull(engine, name, on_line)
    except APIError as error:
        what = "no such image here or in its registry" if missing(error) else reason(error)
        raise NotFound(f"cannot fetch the image {name}: {what}", hint=_HINT) from error
    if found := find(engine, name):
        return found
    raise NotFound(f"the image {name} was not there after its pull", hint=_HINT)


_HINT = "Check the name, `docker login` where the image is private, or give the service a `build:`."


def _pull(engine: Engine, name: str, on_line: Lines) -> None:
    tag = None if "@" in name or ":" in name.rpartition("/")[2] else "latest"
    try:
        stream = engine.api.pull(name, tag=tag, stream=True, decode=True)
    except APIError:
        raise
    for entry in stream:
        if "error" in entry:
            raise NotFound(f"cannot fetch the image {name}: {entry['error']}", hint=_HINT)
        if status := entry.get("status"):
            layer = f"{entry['id']}: " if entry.get("id") else ""
            if "progressDetail" not in entry or not entry["progressDetail"]:
                on_line(f"{layer}{status}")
