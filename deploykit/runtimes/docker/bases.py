"""The base images that app Dockerfiles build on: official ones where a registry answers, else made from Debian.

Without a registry a Debian root comes from ``debootstrap`` (needs root) and is imported into the engine; Python comes
from Debian's packages, Node.js from PyPI. The Dockerfiles stand in ``services/bases``.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
from docker.errors import APIError, DockerException, ImageNotFound

from deploykit.errors import BuildFailed, RuntimeUnavailable
from deploykit.runtimes.base import Lines

DEBIAN = "deploykit/debian:bookworm"
RELEASE = "bookworm"
PULL_SECONDS = 90.0
DEBOOTSTRAP_SECONDS = 600
BUILD_SECONDS = 900
HOST_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
APT_SOURCES = Path("/etc/apt")
INDEX_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
FOLDER = Path(__file__).resolve().parents[3] / "services" / "bases"


@dataclass(frozen=True)
class Base:
    """``image`` is what Dockerfiles name; ``official`` what it is made from; ``fallback`` where that cannot be had."""

    name: str
    image: str
    official: str
    fallback: str


PYTHON = Base("python", "deploykit/python:3", "python:3.12-slim", DEBIAN)
NODE = Base("node", "deploykit/node:24", "node:24-slim", PYTHON.image)
BASES = (PYTHON, NODE)


def missing(client: Any) -> tuple[Base, ...]:
    """The bases that the engine does not have."""
    return tuple(base for base in BASES if not _has(client, base.image))


def build(client: Any, base: Base, on_line: Lines) -> str:
    """Make `base` and return its image id.

    Raises BuildFailed with the last lines of the step that failed, RuntimeUnavailable where neither a registry nor
    debootstrap can be used.
    """
    began = time.monotonic()
    source = base.official
    if not _has(client, source) and not _pulled(client, source, on_line):
        source = base.fallback
        on_line(f"{base.image}: {base.official} cannot be pulled here; made from {source} instead")
        if not _has(client, source):
            if source == DEBIAN:
                _debian(client, on_line)
            else:
                build(client, next(b for b in BASES if b.image == source), on_line)
    identity = _build(client, base, source, on_line)
    on_line(f"{base.image}: ready in {time.monotonic() - began:.0f}s")
    return identity


def _has(client: Any, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True


def _pulled(client: Any, image: str, on_line: Lines) -> bool:
    """Try to pull; an engine that cannot reach its registry says so quickly, or is given up on."""
    on_line(f"pulling {image}")
    said = [f"no answer within {PULL_SECONDS:.0f}s"]

    def pull() -> None:
        try:
            client.api.pull(*image.split(":"))
            said[0] = "the registry did not have it"
        except (APIError, DockerException, OSError) as error:
            said[0] = str(getattr(error, "explanation", None) or error)

    worker = threading.Thread(target=pull, daemon=True)  # one that hangs must not keep the command from ending
    worker.start()
    worker.join(PULL_SECONDS)
    if _has(client, image):
        return True
    on_line(f"pulling {image}: {said[0].strip().splitlines()[0][:160]}")
    return False


def _debian(client: Any, on_line: Lines) -> None:
    tool = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None or os.geteuid() != 0:
        raise RuntimeUnavailable(
            "no image registry can be reached, and a Debian base cannot be made here either",
            hint="Let the engine reach a registry; or, as root on Debian, `apt-get install debootstrap`;"
            " or use `--runtime process`, which needs no images.",
        )
    folder = Path(tempfile.mkdtemp(prefix="deploykit-debian-"))
    try:
        on_line("debootstrap: a minimal Debian (about half a minute)")
        command = [tool, "--variant=minbase", RELEASE, str(folder / "root")]
        mirror = os.environ.get("DEPLOYKIT_DEBIAN_MIRROR") or _mirror(APT_SOURCES)
        done = subprocess.run(  # noqa: S603
            [*command, *([mirror] if mirror else [])],
            capture_output=True,
            text=True,
            timeout=DEBOOTSTRAP_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise BuildFailed("debootstrap failed", details=tuple((done.stdout + done.stderr).splitlines()[-10:]))
        _import(client, folder / "root")
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"debootstrap did not end within {DEBOOTSTRAP_SECONDS}s") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mirror(folder: Path) -> str | None:
    """The mirror this machine's apt takes `RELEASE` from, or None: then debootstrap's own default is right."""
    files = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]
    lines = (line.split() for text in _texts(files) for line in text.splitlines())
    for words in ([w for w in found if not w.startswith("[") and not w.endswith("]")] for found in lines):
        if len(words) >= 4 and words[0] == "deb" and words[2] == RELEASE and "main" in words[3:] and _public(words[1]):
            return words[1]
    for text in _texts(sorted(folder.glob("sources.list.d/*.sources"))):
        for paragraph in re.split(r"\n\s*\n", re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)):
            fields = {k.lower(): v.split() for k, _, v in (x.partition(":") for x in paragraph.splitlines()) if v}
            wanted = (("types", "deb"), ("suites", RELEASE), ("components", "main"))
            if fields.get("enabled") != ["no"] and all(value in fields.get(key, ()) for key, value in wanted):
                return next((uri for uri in fields.get("uris", ()) if _public(uri)), None)
    return None


def _texts(files: Iterable[Path]) -> list[str]:
    return [file.read_text(errors="replace") for file in files if file.is_file()]


def _public(url: str) -> bool:
    """Whether a container can use `url` and an image may keep it: http(s), and no password in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _arguments(base: Base, environment: Mapping[str, str]) -> dict[str, str]:
    """Build arguments: the proxies, and for Python the package indexes that this environment names."""
    found = {name: environment[name] for name in PROXY_VARIABLES if environment.get(name)}
    if base.name == PYTHON.name:
        for name in INDEX_VARIABLES:
            urls = environment.get(name, "").split()
            if usable := [url for url in urls if _public(url)]:
                found[name] = " ".join(usable)
    return found


def _import(client: Any, root: Path) -> None:
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    tar = shutil.which("tar") or "tar"
    with subprocess.Popen(  # noqa: S603
        [tar, "-C", str(root), "-c", "."], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as archive:
        repository, tag = DEBIAN.split(":")
        try:
            client.api.import_image_from_stream(archive.stdout, repository=repository, tag=tag)
        except APIError as error:
            raise BuildFailed(f"the engine did not take {DEBIAN}: {error.explanation}") from error
    if archive.returncode != 0:
        client.images.remove(DEBIAN, force=True)
        raise BuildFailed(f"tar ended with {archive.returncode} while {DEBIAN} was imported")


def _build(client: Any, base: Base, source: str, on_line: Lines) -> str:
    dockerfile = FOLDER / base.name / "Dockerfile"
    if not dockerfile.exists():
        raise BuildFailed(
            f"{base.image} is made from services/bases/{base.name}/Dockerfile, which is not here",
            hint="Run deploykit from a checkout (`pip install -e .`), or build the image under this name yourself.",
        )
    last: list[str] = []
    try:
        for chunk in client.api.build(
            fileobj=_context(dockerfile),
            custom_context=True,
            tag=base.image,
            rm=True,
            forcerm=True,
            decode=True,
            timeout=BUILD_SECONDS,
            buildargs={**_arguments(base, os.environ), "BASE": source},
            labels={"deploykit.base": base.name},
        ):
            if "error" in chunk:
                raise BuildFailed(f"{base.image}: {chunk['error'].strip()}", details=tuple(last[-15:]))
            text = str(chunk.get("stream", "")).strip()
            if text:
                last.append(text)
                on_line(f"{base.image}: {text.splitlines()[0][:100]}")
        return str(client.images.get(base.image).id)
    except APIError as error:
        raise BuildFailed(f"{base.image}: {error.explanation}", details=tuple(last[-15:])) from error


def _context(dockerfile: Path) -> io.BytesIO:
    """The Dockerfile and the certificates this machine trusts (certifi's where the system has none)."""
    certificates = HOST_CERTIFICATES if HOST_CERTIFICATES.exists() else Path(certifi.where())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, path in (("Dockerfile", dockerfile), ("ca-certificates.crt", certificates)):
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    out.seek(0)
    return out
