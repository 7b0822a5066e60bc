"""Where load may be sent, and whether anybody answers there."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

from deploykit.errors import LoadFailed, UsageError

CONTAINER_INTERFACES = ("docker", "br-", "podman", "cni", "lxc", "lxd", "nerdctl", "virbr")
PROBE_TIMEOUT_S = 10.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def split_url(text: str) -> tuple[str, str]:
    """``http://HOST:PORT`` and the path with its query (empty for none); UsageError where it is no http URL."""
    try:
        parts = urlsplit(text)
        port_ok = parts.port is None or 0 < parts.port < 65536
    except ValueError:
        parts, port_ok = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise UsageError(f"{text!r} is not a load target", hint="Give a URL like http://127.0.0.1:8080.")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return f"{parts.scheme}://{parts.netloc}", "" if path == "/" else path


def require_local(url: str, *, allow_remote: bool = False) -> None:
    """UsageError unless every address of the target belongs to this machine or to its containers."""
    if allow_remote:
        return
    host = urlsplit(url).hostname or ""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise LoadFailed(f"the load target {host} has no address: {error}") from error
    addresses = [ipaddress.ip_address(str(text).partition("%")[0]) for text in found]
    own, networks = _this_machine()
    strangers = [address for address in addresses if not is_local(address, own, networks)]
    if strangers or not addresses:
        raise UsageError(
            f"{host} is not on this machine ({', '.join(map(str, strangers))})",
            hint="Load is sent to this machine only. If that server is yours to load, add --allow-remote.",
        )


def is_local(address: Address, own: Iterable[Address], networks: Iterable[Network]) -> bool:
    """Whether an address is loopback, this machine's own, or a private one on a container network. Pure."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or address in set(own):
        return True
    return address.is_private and any(address in network for network in networks)


def await_answer(url: str, path: str, timeout: float) -> None:
    """One request; any HTTP status counts as an answer. LoadFailed says what is wrong otherwise."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    limit = min(timeout, PROBE_TIMEOUT_S)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl._create_unverified_context()  # noqa: S323 - the load goes on whatever the certificate says
        connection = http.client.HTTPSConnection(host, parts.port, timeout=limit, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=limit)
    try:
        connection.request("GET", parts.path + path, headers={"User-Agent": "deploykit-load"})
        connection.getresponse()
    except ConnectionRefusedError as error:
        raise LoadFailed(
            f"{url} refuses connections", hint="Is it running? `deploykit ps` shows what is and where."
        ) from error
    except TimeoutError as error:
        raise LoadFailed(f"{url} did not answer within {limit:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise LoadFailed(f"{url} does not answer HTTP: {error or type(error).__name__}") from error
    finally:
        connection.close()


def _this_machine() -> tuple[set[Address], list[Network]]:
    """This machine's own addresses, and the networks its containers are on."""
    import psutil

    own: set[Address] = set()
    networks: list[Network] = []
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = ipaddress.ip_address(entry.address.partition("%")[0])
            own.add(address)
            if name.startswith(CONTAINER_INTERFACES) and entry.netmask and address.version == 4:
                networks.append(ipaddress.ip_network(f"{address}/{entry.netmask}", strict=False))
    return own, networks
