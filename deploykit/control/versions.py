"""From a service of the Compose file to a version that can run: image, hash, human label."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from deploykit.control.store import Store, Version
from deploykit.events import Event, Sink
from deploykit.runtimes.base import Runtime
from deploykit.spec.hash import config_hash
from deploykit.spec.model import Project, Service


def make(
    runtime: Runtime, project: Project, service: Service, store: Store, emit: Sink, *, build: bool = True
) -> Version:
    """Build or fetch the image of `service` and note the version. Raises BuildFailed, NotFound."""

    def line(text: str) -> None:
        emit(Event("image.progress", text, time.time(), service.name))

    began = time.monotonic()
    if service.build is not None and (build or service.image is None):
        image = runtime.build(project, service, line)
        took = time.monotonic() - began
        emit(Event("image.built", f"{service.name}: image ready in {took:.1f}s", time.time(), service.name))
    else:
        image = runtime.resolve(service, line)
    version = config_hash(service, image)
    known = store.version(service.name, version)
    label = known.label if known else label_for(service, store.labels(service.name))
    made = Version(service.name, version, label, image, service)
    store.add_version(made, time.time())
    return made


def label_for(service: Service, known: Mapping[str, str]) -> str:
    """The image's own tag where it has a telling one, else v1, v2, ... in order of appearance."""
    taken = set(known.values())
    _, _, tag = (service.image or "").rpartition("/")[2].partition(":")
    if service.build is None and tag and tag != "latest" and "@" not in tag and tag not in taken:
        return tag
    number = len(known) + 1
    while f"v{number}" in taken:
        number += 1
    return f"v{number}"


def with_environment(service: Service, changes: Mapping[str, str]) -> Service:
    """`service` with some environment variables set anew."""
    return replace(service, environment={**service.environment, **changes})
