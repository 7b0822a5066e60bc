"""A project's networks on the engine."""

from __future__ import annotations

from docker.errors import APIError

from deploykit.errors import NotFound
from deploykit.runtimes.docker import labels, translate
from deploykit.runtimes.docker.engine import Engine, status
from deploykit.spec.model import Project


def ensure(engine: Engine, project: Project) -> None:
    """Make those that are missing. Raises NotFound for an external one, the SDK's APIError for the rest."""
    wanted = translate.project_networks(project)
    there = {entry["Name"] for entry in engine.api.networks(filters={"name": sorted(set(wanted.values()))})}
    for key, name in wanted.items():
        if name in there:
            continue
        if key in project.external_networks:
            raise NotFound(f"the external network {name} is not there", hint=f"docker network create {name}")
        try:
            engine.api.create_network(name, check_duplicate=True, labels=labels.of_network(project.name, key))
        except APIError as error:
            if status(error) != 409:  # another command made it just now
                raise
