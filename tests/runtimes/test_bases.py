"""The base images: what goes into them, and that both work in a real engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError, DockerException, ImageNotFound

from deploykit.errors import RuntimeUnavailable
from deploykit.runtimes.docker import bases

DEB822 = """Types: deb
# a comment between the fields
URIs: {uri}
Suites: {suite} {suite}-updates
Components: main contrib
"""


def write(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        ("sources.list", "deb http://mirror.example/debian bookworm main\n", "http://mirror.example/debian"),
        ("sources.list", "deb [signed-by=/a arch=amd64] https://m.example/d bookworm main\n", "https://m.example/d"),
        ("sources.list", "# deb http://mirror.example/debian bookworm main\n", None),
        ("sources.list", "deb-src http://mirror.example/debian bookworm main\n", None),
        ("sources.list", "deb http://mirror.example/debian trixie main\n", None),
        ("sources.list", "deb http://user:password@mirror.example/debian bookworm main\n", None),
        ("sources.list", "deb file:///srv/debian bookworm main\n", None),
        ("sources.list.d/a.list", "deb http://m.example/d bookworm main\n", "http://m.example/d"),
        ("sources.list.d/a.sources", DEB822.format(uri="http://m.example/d", suite="bookworm"), "http://m.example/d"),
        ("sources.list.d/a.sources", DEB822.format(uri="http://m.example/d", suite="bookworm-security"), None),
        ("sources.list.d/a.sources", DEB822.format(uri="http://m.example/d", suite="bookworm") + "Enabled: no\n", None),
        (
            "sources.list.d/a.sources",
            DEB822.format(uri="http://no.example/d", suite="sid")
            + "\n"
            + DEB822.format(uri="http://m.example/d", suite="bookworm"),
            "http://m.example/d",
        ),
    ],
)
def test_the_mirror_of_this_machine(tmp_path: Path, name: str, text: str, mirror: str | None) -> None:
    write(tmp_path, name, text)
    assert bases._mirror(tmp_path) == mirror


def test_no_apt_here(tmp_path: Path) -> None:
    assert bases._mirror(tmp_path / "nothing") is None


def test_arguments_keep_files_and_passwords_out() -> None:
    environment = {
        "https_proxy": "http://proxy.example:3128",
        "NO_PROXY": "",
        "PIP_INDEX_URL": "file:///srv/simple",
        "PIP_EXTRA_INDEX_URL": "https://index.example/simple https://user:password@index.example/simple",
        "SECRET": "x",
    }
    proxy = {"https_proxy": "http://proxy.example:3128"}
    extra = {"PIP_EXTRA_INDEX_URL": "https://index.example/simple"}
    assert bases._arguments(bases.PYTHON, environment) == {**proxy, **extra}
    assert bases._arguments(bases.NODE, environment) == proxy


class NoRegistry:
    """An engine without images that can reach no registry."""

    def __init__(self) -> None:
        self.images = self.api = self

    def get(self, name: str) -> Any:
        raise ImageNotFound(name)

    def pull(self, name: str, tag: str) -> None:
        raise APIError("500", explanation="dial tcp: no route to host")


def test_neither_registry_nor_debootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases.shutil, "which", lambda *a, **k: None)
    said: list[str] = []
    assert bases.missing(NoRegistry()) == bases.BASES
    with pytest.raises(RuntimeUnavailable) as caught:
        bases.build(NoRegistry(), bases.NODE, said.append)
    assert "apt-get install debootstrap" in caught.value.hint
    assert any("no route to host" in line for line in said)


# In a real engine


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    try:
        found = docker.from_env(timeout=900)
        found.ping()
    except DockerException as error:
        if os.environ.get("DEPLOYKIT_REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(str(error))
    yield found
    found.close()


@pytest.mark.docker
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("base", "commands"),
    [
        (bases.PYTHON, (["python", "-c", "import ssl, sqlite3, venv"], ["pip", "--version"])),
        (bases.NODE, (["node", "-e", "process.exit(0)"], ["npm", "--version"])),
    ],
    ids=lambda value: value.name if isinstance(value, bases.Base) else "",
)
def test_a_base_has_its_tools_and_a_plain_user(client: Any, base: bases.Base, commands: tuple[list[str], ...]) -> None:
    if base in bases.missing(client):
        assert bases.build(client, base, lambda line: None).startswith("sha256:")
    assert base not in bases.missing(client)
    for command in commands:
        client.containers.run(base.image, command, remove=True, network_mode="none", name=f"dk-t-base-{os.getpid()}")
    said = client.containers.run(
        base.image, ["id", "-u"], user="app", remove=True, network_mode="none", name=f"dk-t-base-{os.getpid()}"
    )
    assert said.decode().strip() == "10001"
