"""Which of Compose's service keys deploykit acts on; for the others it says so."""

from __future__ import annotations

from collections.abc import Callable

from deploykit.spec.model import Warning
from deploykit.spec.nodes import Map, Scalar, Seq, scalar_text

_IMAGE = ("image", "build", "command", "entrypoint", "environment", "env_file", "user", "working_dir", "extends")
_NETWORK = ("ports", "expose", "networks", "depends_on", "healthcheck", "profiles", "labels")
_SIZE = ("deploy", "scale", "mem_limit", "cpus", "pids_limit", "restart", "stop_grace_period", "stop_signal")
_SAFETY = ("volumes", "tmpfs", "read_only", "cap_drop", "cap_add", "security_opt")
ACTED_ON = frozenset((*_IMAGE, *_NETWORK, *_SIZE, *_SAFETY))
_PARTS = {
    "build": frozenset({"context", "dockerfile", "args", "target"}),
    "deploy": frozenset({"replicas", "resources", "restart_policy", "update_config"}),
}
_MOUNTS = ("bind", "volume", "tmpfs")


def warn_unsupported(name: str, node: Map, warn: Callable[[Warning], None]) -> None:
    """Name, once each, the keys of a service that change nothing here."""
    for key, value in node.items.items():
        if key.startswith("x-"):
            continue
        if key not in ACTED_ON:
            warn(Warning(node.key_at(key), f"services.{name}.{key} is not acted on"))
        elif key in _PARTS and isinstance(value, Map):
            for part in value.items:
                if part not in _PARTS[key] and not part.startswith("x-"):
                    warn(Warning(value.key_at(part), f"services.{name}.{key}.{part} is not acted on"))
            resources = value.items.get("resources")
            if key == "deploy" and isinstance(resources, Map) and "reservations" in resources.items:
                at = resources.key_at("reservations")
                warn(Warning(at, f"services.{name}.deploy.resources.reservations is not acted on"))
        elif key == "volumes" and isinstance(value, Seq):
            for entry in value.items:
                kind_of = entry.get("type") if isinstance(entry, Map) else None
                if isinstance(kind_of, Scalar) and kind_of.value not in _MOUNTS:
                    text = scalar_text(kind_of.value)
                    warn(Warning(entry.at, f"services.{name}.volumes of type {text} are not acted on"))
