"""From a recipe to the Engine's JSON, and from the Engine's JSON to a Replica. Pure: data in, data out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from deploykit.core.replica import Health, Replica, ReplicaSpec, State
from deploykit.runtimes.docker import labels
from deploykit.spec.model import Healthcheck, Mount, Project, Service

PIDS = 512  # processes and threads a replica may have where the spec says nothing
LOG = {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}}

_STATES: dict[str, State] = {
    "created": "created",
    "running": "running",
    "paused": "paused",
    "restarting": "restarting",
    "removing": "dead",
    "exited": "exited",
    "dead": "dead",
}
_EXIT = re.compile(r"^(?:Exited|Restarting|Dead) \((-?\d+)\)")


def default_network(project: str) -> str:
    return f"{project}_default"


def project_networks(project: Project) -> dict[str, str]:
    """Key to engine name; the default network where the spec names none."""
    return dict(project.networks) or {"default": default_network(project.name)}


def networks_of(spec: ReplicaSpec) -> tuple[tuple[str, str], ...]:
    """(key, engine name) of each network the replica joins; the project's default one where the spec names none."""
    return spec.networks or (("default", default_network(spec.project)),)


def endpoint(spec: ReplicaSpec, key: str) -> dict[str, Any]:
    """How the replica joins the network `key`.

    The name of an HTTP service belongs to the proxy, which balances; other services' replicas answer to it themselves.
    """
    aliases = [spec.name]
    if spec.service.http_port is None:
        aliases += [spec.service.name, *spec.service.networks.get(key, ())]
    return {"Aliases": list(dict.fromkeys(aliases))}


def create_body(spec: ReplicaSpec, directory: Path | None = None, files: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The body of ``POST /containers/create``. It names the first network; older engines take only one there."""
    service = spec.service
    key, home = networks_of(spec)[0]
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in environment(spec).items()],
        "Labels": labels.of_replica(spec, home, directory, files),
        "StopSignal": service.stop_signal,
        "ExposedPorts": {f"{port}/tcp": {} for port in (spec.port, *service.expose) if port},
        "HostConfig": host_config(spec, home),
        "NetworkingConfig": {"EndpointsConfig": {home: endpoint(spec, key)}},
    }
    for udp in _udp(service):
        body["ExposedPorts"][udp] = {}
    if service.command is not None:
        body["Cmd"] = list(service.command)
    if service.entrypoint is not None:
        body["Entrypoint"] = list(service.entrypoint)
    if service.user is not None:
        body["User"] = service.user
    if service.working_dir is not None:
        body["WorkingDir"] = service.working_dir
    if service.healthcheck is not None:
        body["Healthcheck"] = healthcheck(service.healthcheck)
    return body


def environment(spec: ReplicaSpec) -> dict[str, str]:
    """The spec's variables, with PORT and REPLICA where it does not set them."""
    ours = {"REPLICA": spec.name, **({"PORT": str(spec.port)} if spec.port else {})}
    return {**ours, **spec.service.environment}


def host_config(spec: ReplicaSpec, network: str) -> dict[str, Any]:
    service = spec.service
    config: dict[str, Any] = {
        "NetworkMode": network,
        "RestartPolicy": restart_policy(service.restart),
        "PidsLimit": service.resources.pids or PIDS,
        "ReadonlyRootfs": service.read_only,
        "SecurityOpt": list(security(service.security_opt)),
        "LogConfig": LOG,
    }
    if service.resources.cpus is not None:
        config["NanoCpus"] = round(service.resources.cpus * 1e9)
    if service.resources.memory is not None:
        config["Memory"] = service.resources.memory
    if service.cap_drop:
        config["CapDrop"] = list(service.cap_drop)
    if service.cap_add:
        config["CapAdd"] = list(service.cap_add)
    if service.tmpfs:
        config["Tmpfs"] = {path: options for path, _, options in (entry.partition(":") for entry in service.tmpfs)}
    names = dict(spec.volumes)
    if binds := [_bind(m) for m in service.volumes if m.type == "bind"]:
        config["Binds"] = binds
    if mounts := [_mount(m, names) for m in service.volumes if m.type != "bind"]:
        config["Mounts"] = mounts
    if udp := _udp(service):
        config["PortBindings"] = udp
    return config


def security(said: tuple[str, ...]) -> tuple[str, ...]:
    """`no-new-privileges` always, unless the spec itself speaks of it."""
    if any(option.startswith("no-new-privileges") for option in said):
        return said
    return ("no-new-privileges", *said)


def restart_policy(restart: str) -> dict[str, Any]:
    """``on-failure:3`` -> name and count; the others have no count."""
    name, _, count = restart.partition(":")
    return {"Name": name, "MaximumRetryCount": int(count)} if count else {"Name": name}


def healthcheck(check: Healthcheck) -> dict[str, Any]:
    """Compose's healthcheck with the engine's nanoseconds."""
    if check.test[:1] == ("NONE",):
        return {"Test": ["NONE"]}
    return {
        "Test": list(check.test),
        "Interval": _nanoseconds(check.interval),
        "Timeout": _nanoseconds(check.timeout),
        "Retries": check.retries,
        "StartPeriod": _nanoseconds(check.start_period),
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _bind(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"


def _mount(mount: Mount, names: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"Type": mount.type, "Target": mount.target, "ReadOnly": mount.read_only}
    if mount.type == "volume" and mount.source is not None:
        entry["Source"] = names.get(mount.source, mount.source)
    return entry


def _udp(service: Service) -> dict[str, list[dict[str, str]]]:
    """nginx owns published tcp ports; udp is published by the engine itself."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in service.ports:
        if port.protocol == "udp":
            host = {"HostIp": port.host_ip, "HostPort": str(port.published or "")}
            bindings.setdefault(f"{port.target}/udp", []).append(host)
    return bindings


def listed(entry: Mapping[str, Any]) -> Replica:
    """A Replica from one entry of ``GET /containers/json``."""
    status = str(entry.get("Status") or "")
    code = _EXIT.match(status)
    return _replica(
        id=entry["Id"],
        name=entry["Names"][0].lstrip("/"),
        said=entry["Labels"],
        state=_STATES.get(entry["State"], "dead"),
        health=_health(status),
        networks=entry["NetworkSettings"]["Networks"],
        image=entry["ImageID"],
        created=float(entry["Created"]),
        code=int(code[1]) if code else None,
    )


def inspected(entry: Mapping[str, Any]) -> Replica:
    """A Replica from ``GET /containers/ID/json``; equal to what `listed` says of the same moment."""
    state = entry["State"]
    health = (state.get("Health") or {}).get("Status", "none")
    over = state["Status"] in ("exited", "dead", "restarting")
    return _replica(
        id=entry["Id"],
        name=entry["Name"].lstrip("/"),
        said=entry["Config"]["Labels"],
        state=_STATES.get(state["Status"], "dead"),
        health=health if health in ("starting", "healthy", "unhealthy") else "none",
        networks=entry["NetworkSettings"]["Networks"],
        image=entry["Image"],
        created=seconds(entry["Created"]),
        code=state["ExitCode"] if over else None,
    )


def seconds(moment: str) -> float:
    """Whole Unix seconds of an RFC 3339 time with any number of fraction digits."""
    return float(int(datetime.fromisoformat(moment.partition(".")[0].rstrip("Z") + "+00:00").timestamp()))


def _health(status: str) -> Health:
    if "(healthy)" in status:
        return "healthy"
    if "(unhealthy)" in status:
        return "unhealthy"
    return "starting" if "(health: starting)" in status else "none"


def _replica(
    *,
    id: str,
    name: str,
    said: Mapping[str, str],
    state: State,
    health: Health,
    networks: Mapping[str, Mapping[str, Any]],
    image: str,
    created: float,
    code: int | None,
) -> Replica:
    port = int(said.get(labels.PORT) or 0)
    home = networks.get(said.get(labels.HOME, "")) or next(iter(networks.values()), {})
    address = home.get("IPAddress")
    return Replica(
        id=id,
        name=name,
        project=said.get(labels.PROJECT, ""),
        service=said.get(labels.SERVICE, ""),
        version=said.get(labels.VERSION, ""),
        label=said.get(labels.LABEL, ""),
        number=int(said.get(labels.NUMBER) or 0),
        state=state,
        health=health,
        address=f"{address}:{port}" if address and port else None,
        image=said.get(labels.IMAGE) or image,
        started_at=created,
        exit_code=code,
    )
