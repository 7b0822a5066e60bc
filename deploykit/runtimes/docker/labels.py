"""The labels that containers, networks and volumes carry: Compose's own, so that its tools show them, and ours."""

from __future__ import annotations

from pathlib import Path

from deploykit.core.replica import ReplicaSpec

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
ONEOFF = "com.docker.compose.oneoff"
CONFIG_HASH = "com.docker.compose.config-hash"
IMAGE = "com.docker.compose.image"
WORKING_DIR = "com.docker.compose.project.working_dir"
CONFIG_FILES = "com.docker.compose.project.config_files"
COMPOSE_VERSION = "com.docker.compose.version"
NETWORK = "com.docker.compose.network"
VOLUME = "com.docker.compose.volume"

ROLE = "deploykit.role"
VERSION = "deploykit.version"
LABEL = "deploykit.label"
PORT = "deploykit.port"
HOME = "deploykit.network"  # the engine's name of the network whose address the proxy uses
LISTENS = "deploykit.listens"
RECIPE = "deploykit.recipe"

REPLICA = "replica"
PROXY = "proxy"

COMPOSE_FOLLOWED = "2.40.3"  # the Compose whose labels these are


def of_project(project: str, directory: Path | None, files: tuple[Path, ...]) -> dict[str, str]:
    """What every container of a project says about the project."""
    said = {PROJECT: project, ONEOFF: "False", COMPOSE_VERSION: COMPOSE_FOLLOWED}
    if directory is not None:
        said[WORKING_DIR] = str(directory)
    if files:
        said[CONFIG_FILES] = ",".join(str(file) for file in files)
    return said


def of_replica(spec: ReplicaSpec, home: str, directory: Path | None, files: tuple[Path, ...]) -> dict[str, str]:
    """A replica's labels. The spec's own come first: they cannot pass for ours."""
    return {
        **spec.service.labels,
        **of_project(spec.project, directory, files),
        SERVICE: spec.service.name,
        NUMBER: str(spec.number),
        CONFIG_HASH: spec.version,
        IMAGE: spec.image,
        ROLE: REPLICA,
        VERSION: spec.version,
        LABEL: spec.label,
        PORT: str(spec.port),
        HOME: home,
    }


def of_network(project: str, key: str) -> dict[str, str]:
    return {PROJECT: project, NETWORK: key, COMPOSE_VERSION: COMPOSE_FOLLOWED}


def of_volume(project: str, key: str) -> dict[str, str]:
    return {PROJECT: project, VOLUME: key, COMPOSE_VERSION: COMPOSE_FOLLOWED}
