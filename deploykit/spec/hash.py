"""What names a version of a service: everything that takes a new replica to change, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from deploykit.spec.model import Service


def config_hash(service: Service, image_id: str) -> str:
    """12 hexadecimal digits over the image and the configuration of a replica.

    The number of replicas, published ports, ``x-deploykit``, update_config, profiles and depends_on do not count:
    they change without a new replica.
    """
    healthcheck = service.healthcheck
    ports = sorted({(port.target, port.protocol, port.app_protocol) for port in service.ports})
    parts = {
        "image": image_id,
        "command": service.command,
        "entrypoint": service.entrypoint,
        "environment": dict(service.environment),
        "mounts": [asdict(mount) for mount in service.volumes],
        "user": service.user,
        "working_dir": service.working_dir,
        "cap_add": sorted(service.cap_add),
        "cap_drop": sorted(service.cap_drop),
        "resources": asdict(service.resources),
        "healthcheck": asdict(healthcheck) if healthcheck else None,
        "networks": {name: sorted(aliases) for name, aliases in service.networks.items()},
        "labels": dict(service.labels),
        "stop_signal": service.stop_signal,
        "targets": [port for port in ports if port[2] == "http"],
        "read_only": service.read_only,
        "tmpfs": service.tmpfs,
        "security_opt": service.security_opt,
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
