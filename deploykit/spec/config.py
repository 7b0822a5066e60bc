"""The merged project as plain data, as ``docker compose config --format json`` prints it."""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.spec.nodes import Map, Node, Plain, plain

_UNSAID_WHEN_FALSE = ("privileged", "read_only", "tty", "stdin_open", "oom_kill_disable", "use_api_socket")


def project_config(
    name: str,
    services: Mapping[str, Map],
    sections: Mapping[str, Mapping[str, Map]],
    extensions: Mapping[str, Node],
) -> dict[str, Plain]:
    """Dollar signs are doubled, so that what is printed can be read again."""
    out: dict[str, Plain] = {"name": name, "services": {key: _service(node) for key, node in sorted(services.items())}}
    out.update((key, plain(node)) for key, node in extensions.items())
    for section, entries in sections.items():
        if entries:
            out[section] = {key: plain(node) for key, node in sorted(entries.items())}
    escaped = _escape(out)
    assert isinstance(escaped, dict)
    return escaped


def _service(node: Map) -> Plain:
    data = plain(node)
    assert isinstance(data, dict)
    data.setdefault("command", None)
    data.setdefault("entrypoint", None)
    kept = ("command", "entrypoint")
    empty: tuple[Plain, ...] = (None, [], {})
    done = {key: value for key, value in data.items() if key in kept or value not in empty}
    for key in _UNSAID_WHEN_FALSE:
        if done.get(key) is False:
            del done[key]
    deploy = done.get("deploy")
    if isinstance(deploy, dict):
        deploy.setdefault("placement", {})
        deploy.setdefault("resources", {})
    return dict(sorted(done.items()))


def _escape(value: Plain) -> Plain:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    return value
