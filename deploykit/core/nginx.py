"""Routes to the text of an nginx configuration.

What each directive is for is in the nginx manual; the reasons that are not obvious:

* ``split_clients`` carries the weights. ``weight=`` restarts its round robin at every reload, so that a 1% canary
  would see nothing while the configuration changes often.
* ``keepalive_min_timeout`` keeps an idle client connection open for a while after a reload; else nginx closes it just
  as its client sends the next request. ``worker_shutdown_timeout`` bounds how long old workers may live.
* A canary server has ``max_fails=0``: nginx must not take a sick canary out and starve the analysis.
* The upstream's ``keepalive_timeout`` is shorter than any application server's, so that nginx never reuses a
  connection that the application is just closing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploykit.core.routing import Route, Track

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9._:\[\]-]+\Z")
_PATH = re.compile(r"/[^\"\\$\x00-\x1f]*\Z")
_IDENT = re.compile(r"[^a-zA-Z0-9]")


@dataclass(frozen=True)
class Settings:
    """Where and how nginx runs.

    ``run`` is its private folder, ``access_log`` a path it can append to, ``log_buffer`` bytes, ``log_format`` the
    whole directive, ``bind_ip`` replaces each port's own address (inside a container), ``drain`` is seconds.
    """

    run: str
    access_log: str
    log_format: str
    log_buffer: int = 65536
    bind_ip: str | None = None
    workers: int = 2
    drain: float = 30.0
    internal: bool = False


def render(routes: Sequence[Route], settings: Settings) -> str:
    """The whole nginx.conf. What is outside a strict alphabet raises ValueError: nothing is injected."""
    for path in (settings.run, settings.access_log):
        if not _PATH.match(path):
            raise ValueError(f"{path!r} cannot be a path of nginx")
    http = [r for r in routes if _ports(r, "http")]
    tcp = [r for r in routes if _ports(r, "tcp")]
    out: list[str] = [
        f'pid "{settings.run}/nginx.pid";',
        "error_log stderr warn;",
        f"worker_processes {settings.workers};",
        f"worker_shutdown_timeout {max(1, round(settings.drain))}s;",
        "worker_rlimit_nofile 16384;",
        "events {",
        "    worker_connections 4096;",
        "}",
    ]
    if http:
        out += ["http {", *_indent(_http_globals(settings)), *_indent(_versions(http))]
        for route in http:
            out += _indent(_http_route(route, settings))
        out.append("}")
    if any(track.servers for route in tcp for track in route.tracks):
        out.append("stream {")
        for route in tcp:
            out += _indent(_stream_route(route, settings))
        out.append("}")
    return "\n".join(out) + "\n"


def _indent(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _ports(route: Route, protocol: str) -> list[int]:
    return [p.published for p in route.ports if p.app_protocol == protocol and p.published is not None]


def _http_globals(settings: Settings) -> list[str]:
    temp = [
        f'{kind}_temp_path "{settings.run}/{kind}";' for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ]
    return [
        *temp,
        settings.log_format,
        f'access_log "{settings.access_log}" deploykit buffer={settings.log_buffer} flush=100ms;',
        "server_tokens off;",
        "client_max_body_size 64m;",
        "keepalive_timeout 75s;",
        "keepalive_min_timeout 2s;",
        "keepalive_requests 100000;",
        "tcp_nodelay on;",
        "variables_hash_max_size 4096;",
        "map_hash_bucket_size 128;",
        "map_hash_max_size 16384;",
        'map $http_upgrade $dk_connection { default upgrade; "" ""; }',
    ]


def _versions(routes: Sequence[Route]) -> list[str]:
    """Address to label, for the X-Deploykit-Version header that tells a client who answered.

    After a retry $upstream_addr is a list; only then is its last address taken out by the regular expression.
    """
    lines = ["map $upstream_addr $dk_version {", "    default $dk_retried;"]
    seen: set[str] = set()
    for route in routes:
        for track in route.tracks:
            for server in track.servers:
                if server.address not in seen:
                    seen.add(server.address)
                    lines.append(f'    "{_address(server.address)}" "{_name(server.label)}";')
    labels = lines[2:]
    return [
        *lines,
        "}",
        'map $upstream_addr $dk_last { "~([^ ,]+)$" $1; default ""; }',
        "map $dk_last $dk_retried {",
        '    default "";',
        *labels,
        "}",
    ]


def _upstream(route: Route, track: Track, *, http: bool) -> list[str]:
    name = _upstream_name(route, track)
    lines = [f"upstream {name} {{", f"    zone {name} 128k;"]
    guard = "max_fails=0" if track.name == "canary" or len(track.servers) < 2 else "max_fails=2 fail_timeout=2s"
    lines += [f"    server {_address(s.address)} {guard};" for s in track.servers]
    if http:
        lines += ["    keepalive 64;", "    keepalive_timeout 1s;"]
    return [*lines, "}"]


def _http_route(route: Route, settings: Settings) -> list[str]:
    tracks = [t for t in route.tracks if t.servers]
    variable = f"$dk_{_IDENT.sub('_', route.service)}_track"
    lines: list[str] = []
    for track in tracks:
        lines += _upstream(route, track, http=True)
    canary = next((t for t in tracks if t.name == "canary"), None)
    if tracks:
        lines.append(f'split_clients "$request_id" {variable} {{')
        if canary is not None and 0 < canary.weight < 100:
            lines.append(f"    {canary.weight:.2f}% canary;")
        rest = "canary" if canary is not None and canary.weight >= 100 else "stable"
        lines += [f"    * {rest};", "}"]
    lines.append("server {")
    lines += _indent(_listens(route, settings))
    lines += [f"    set $dk_service {_name(route.service)};", '    set $dk_forced "";']
    if tracks:
        prefix = _upstream_name(route, tracks[0]).removesuffix(tracks[0].name)
        lines += [
            f"    set $dk_track {variable};",
            "    location / {",
            f"        proxy_pass http://{prefix}{variable};",
            "        proxy_http_version 1.1;",
            "        proxy_set_header Host $http_host;",
            "        proxy_set_header Connection $dk_connection;",
            "        proxy_set_header Upgrade $http_upgrade;",
            "        proxy_set_header X-Request-ID $request_id;",
            "        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
            "        proxy_set_header X-Forwarded-Proto $scheme;",
            "        proxy_connect_timeout 2s;",
            "        proxy_next_upstream error timeout;",
            "        proxy_next_upstream_tries 3;",
            "        proxy_next_upstream_timeout 10s;",
            "        add_header X-Deploykit-Version $dk_version always;",
            "    }",
        ]
    else:
        lines += ['    set $dk_track "";', "    location / {", "        return 503;", "    }"]
    return [*lines, "}"]


def _listens(route: Route, settings: Settings) -> list[str]:
    lines = []
    for port in route.ports:
        if port.app_protocol == "http" and port.published is not None:
            ip = settings.bind_ip or port.host_ip
            lines.append(f"listen {_address(ip)}:{port.published} default_server;")
    if settings.internal:
        published = {p.published for p in route.ports}
        targets = sorted({p.target for p in route.ports if p.app_protocol == "http"} - published)
        lines += [f"listen {settings.bind_ip or '0.0.0.0'}:{target};" for target in targets]  # noqa: S104
        lines.append(f"server_name {_name(route.service)};")
    return lines


def _stream_route(route: Route, settings: Settings) -> list[str]:
    tracks = [t for t in route.tracks if t.servers]
    if not tracks:
        return []
    lines = _upstream(route, tracks[0], http=False)
    for port in route.ports:
        if port.app_protocol == "tcp" and port.published is not None:
            ip = settings.bind_ip or port.host_ip
            lines += [
                "server {",
                f"    listen {_address(ip)}:{port.published};",
                "    proxy_connect_timeout 2s;",
                f"    proxy_pass {_upstream_name(route, tracks[0])};",
                "}",
            ]
    return lines


def _upstream_name(route: Route, track: Track) -> str:
    return f"{_name(route.service)}_{track.name}"


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise ValueError(f"{text!r} cannot stand in an nginx configuration")
    return text


def _address(text: str) -> str:
    if not _ADDRESS.match(text):
        raise ValueError(f"{text!r} is not an address")
    return text
