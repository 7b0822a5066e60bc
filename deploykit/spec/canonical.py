"""One form for what Compose lets you write in several, so that files can be merged and read without asking twice.

Positions stay with every value. The long forms are those ``docker compose config`` prints.
"""

from __future__ import annotations

import re
import shlex

from deploykit.spec import mounts, ports
from deploykit.spec.model import Position
from deploykit.spec.mounts import Place
from deploykit.spec.nodes import Map, Node, Scalar, Seq, fail, kind, scalar_text
from deploykit.spec.units import boolean, duration, go_duration, integer, number, size

_PAIRS = ("environment", "labels", "annotations", "sysctls")
_LISTS = ("dns", "dns_search", "tmpfs", "label_file")
_SIZES = ("mem_limit", "mem_reservation", "memswap_limit", "shm_size")
_BOOLEANS = ("init", "oom_kill_disable", "privileged", "read_only", "stdin_open", "tty", "attach", "use_api_socket")
_TIMES = ("interval", "timeout", "start_period", "start_interval", "delay", "monitor", "window")
_REMOTE = re.compile(r"(?:https?|ssh|git|oci)://|git@|github\.com/|docker-image://|target:|service:")


def document(doc: Map, place: Place) -> Map:
    """A whole file in the one form: services, networks, volumes, secrets, configs."""
    changed: dict[str, Node] = {}
    for section in ("services", "networks", "volumes", "secrets", "configs"):
        entries = doc.items.get(section)
        if entries is None or entries.tag == "!reset":
            continue
        if not isinstance(entries, Map):
            changed[section] = Map({}, entries.at)
            continue
        done: dict[str, Node] = {}
        for name, entry in entries.items.items():
            if section == "services":
                done[name] = service(entry, place, f"services.{name}")
            else:
                done[name] = _resource(entry, place)
        changed[section] = Map(done, entries.at, entries.keys, entries.tag)
    return doc.with_items(changed)


def _resource(entry: Node, place: Place) -> Node:
    if not isinstance(entry, Map):
        return entry if entry.tag else Map({}, entry.at)
    changed: dict[str, Node] = {}
    if (labels := entry.get("labels")) is not None:
        changed["labels"] = pairs(labels, "labels", empty="")
    if isinstance(path := entry.get("file"), Scalar):
        changed["file"] = Scalar(place.path(scalar_text(path.value)), path.at)
    options = entry.get("driver_opts")
    device = options.get("device") if isinstance(options, Map) else None
    bound = options.get("o") if isinstance(options, Map) else None
    if isinstance(options, Map) and isinstance(device, Scalar) and isinstance(bound, Scalar) and bound.value == "bind":
        changed["driver_opts"] = options.with_items(
            {"device": Scalar(place.path(scalar_text(device.value)), device.at)}
        )
    return entry.with_items(changed)


def service(node: Node, place: Place, where: str) -> Node:
    """One service in the one form. ``where`` is its path, for messages."""
    if node.tag == "!reset":
        return node
    if not isinstance(node, Map):
        raise fail(node.at, f"{where} must be a mapping, not {kind(node)}")
    done: dict[str, Node] = {}
    for key, value in node.items.items():
        if value.tag == "!reset" or (isinstance(value, Scalar) and value.value is None):
            done[key] = value
            continue
        changed = _key(key, value, place, where)
        done[key] = retag(changed, value.tag) if value.tag else changed
    return Map(done, node.at, node.keys, node.tag)


def retag(node: Node, tag: str) -> Node:
    """The same node under another tag."""
    if isinstance(node, Scalar):
        return Scalar(node.value, node.at, tag, node.inset)
    if isinstance(node, Seq):
        return Seq(node.items, node.at, tag)
    return Map(node.items, node.at, node.keys, tag)


def _key(key: str, value: Node, place: Place, where: str) -> Node:
    what = f"{where}.{key}"
    if key in _PAIRS:
        return pairs(value, what, empty=None if key == "environment" else "")
    if key in _LISTS:
        return as_list(value)
    if key in ("command", "entrypoint"):
        return words(value, what)
    if key == "ports":
        return ports.expand(value)
    if key == "volumes":
        return mounts.expand(value, place)
    if key == "expose":
        return _expose(value, what)
    if key == "build":
        return _build(value, place)
    if key == "depends_on":
        return _depends_on(value, what)
    if key == "networks":
        return _names(value)
    if key == "env_file":
        return _env_file(value, place)
    if key in ("configs", "secrets"):
        assert isinstance(value, Seq)
        entries = (_wrapped(item, "source") for item in value.items)
        return Seq(tuple(_secret(entry) if key == "secrets" else entry for entry in entries), value.at)
    if key == "devices":
        assert isinstance(value, Seq)
        return Seq(tuple(_device(item) for item in value.items), value.at)
    if key == "healthcheck":
        return _healthcheck(value, what)
    if key == "deploy":
        return _deploy(value, what)
    if key == "extra_hosts":
        return _extra_hosts(value)
    if key == "extends":
        return _wrapped(value, "service")
    if key == "logging" and isinstance(value, Map) and (options := value.get("options")) is not None:
        return value.with_items({"options": pairs(options, f"{what}.options", empty="")})
    if key == "develop" and isinstance(value, Map):
        return _develop(value, place)
    return _simple(key, value, what)


def _simple(key: str, value: Node, what: str) -> Node:
    if key in _SIZES:
        return Scalar(str(size(value, what)), value.at)
    if key in _BOOLEANS:
        return Scalar(boolean(value, what), value.at)
    if key == "stop_grace_period":
        return Scalar(go_duration(duration(value, what)), value.at)
    if key in ("scale", "pids_limit"):
        return Scalar(integer(value, what, 0 if key == "scale" else -1), value.at)
    if key == "cpus":
        return Scalar(number(value, what, 0), value.at)
    return value


def pairs(node: Node, what: str, *, empty: str | None) -> Map:
    """A mapping of strings, from a mapping or a list of ``KEY=VALUE``; ``empty`` stands for a missing value."""
    items: dict[str, Node] = {}
    keys: dict[str, Position] = {}
    if isinstance(node, Map):
        for name, value in node.items.items():
            items[name] = value if value.tag == "!reset" else _text(value, f"{what}.{name}", empty)
            keys[name] = node.key_at(name)
    elif isinstance(node, Seq):
        for item in node.items:
            name, sign, text = scalar_text(item.value if isinstance(item, Scalar) else None).partition("=")
            if not name:
                raise fail(item.at, f"{what} has an entry without a name", "an entry is written NAME=VALUE")
            items[name] = Scalar(text if sign else empty, item.at)
            keys[name] = item.at
    return Map(items, node.at, keys, node.tag)


def _text(node: Node, what: str, empty: str | None) -> Scalar:
    if not isinstance(node, Scalar):
        raise fail(node.at, f"{what} must be a string, not {kind(node)}")
    return Scalar(empty if node.value is None else scalar_text(node.value), node.at, node.tag)


def as_list(node: Node) -> Seq:
    return node if isinstance(node, Seq) else Seq((node,), node.at, node.tag)


def words(node: Node, what: str) -> Seq:
    """A command as a list; a string is split as a shell would split it."""
    if not isinstance(node, Scalar):
        return as_list(node)
    try:
        split = shlex.split(scalar_text(node.value))
    except ValueError as error:
        raise fail(node.at, f"{what} cannot be split into words: {str(error).lower()}") from None
    return Seq(tuple(Scalar(word, node.at) for word in split), node.at, node.tag)


def _names(node: Node) -> Map:
    """``[a, b]`` as ``{a: null, b: null}``."""
    if isinstance(node, Map):
        return node
    items: dict[str, Node] = {}
    keys: dict[str, Position] = {}
    for item in as_list(node).items:
        name = scalar_text(item.value if isinstance(item, Scalar) else None)
        items[name] = Scalar(None, item.at)
        keys[name] = item.at
    return Map(items, node.at, keys, node.tag)


def _depends_on(node: Node, what: str) -> Map:
    names = _names(node)
    done: dict[str, Node] = {}
    for name, entry in names.items.items():
        given = entry if isinstance(entry, Map) else Map({}, entry.at)
        items: dict[str, Node] = {"condition": Scalar("service_started", entry.at), **given.items}
        required = given.get("required")
        items["required"] = Scalar(boolean(required, f"{what}.{name}.required") if required else True, entry.at)
        if (restart := given.get("restart")) is not None:
            items["restart"] = Scalar(boolean(restart, f"{what}.{name}.restart"), restart.at)
        done[name] = Map(items, entry.at, given.keys)
    return Map(done, names.at, names.keys, names.tag)


def _expose(node: Node, what: str) -> Seq:
    for item in as_list(node).items:
        text = scalar_text(item.value if isinstance(item, Scalar) else None)
        if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?", text):
            raise fail(item.at, f"{what} must hold ports, not '{text}'", "a port is written like 8000 or 8000/tcp")
    return Seq(tuple(_text(item, what, "") for item in as_list(node).items), node.at, node.tag)


def _build(node: Node, place: Place) -> Map:
    given = _wrapped(node, "context")
    context = given.get("context")
    changed: dict[str, Node] = {}
    if isinstance(context, Scalar):
        text = scalar_text(context.value)
        changed["context"] = Scalar(text if _REMOTE.match(text) else place.path(text), context.at)
    for key in ("args", "labels", "additional_contexts"):
        if (value := given.get(key)) is not None:
            changed[key] = pairs(value, f"build.{key}", empty=None if key == "args" else "")
    if isinstance(contexts := changed.get("additional_contexts"), Map):
        changed["additional_contexts"] = Map(
            {
                name: entry
                if not isinstance(entry, Scalar) or _REMOTE.match(scalar_text(entry.value))
                else Scalar(place.path(scalar_text(entry.value)), entry.at)
                for name, entry in contexts.items.items()
            },
            contexts.at,
            contexts.keys,
        )
    if isinstance(secrets := given.get("secrets"), Seq):
        changed["secrets"] = Seq(tuple(_wrapped(item, "source") for item in secrets.items), secrets.at)
    if (ssh := given.get("ssh")) is not None and isinstance(ssh, Map):
        changed["ssh"] = Seq(
            tuple(
                Scalar(f"{k}={scalar_text(v.value)}" if isinstance(v, Scalar) and v.value else k, v.at)
                for k, v in ssh.items.items()
            ),
            ssh.at,
        )
    if (shm := given.get("shm_size")) is not None:
        changed["shm_size"] = Scalar(str(size(shm, "build.shm_size")), shm.at)
    for key in ("no_cache", "pull", "privileged"):
        if (value := given.get(key)) is not None:
            changed[key] = Scalar(boolean(value, f"build.{key}"), value.at)
    return given.with_items(changed)


def with_build_defaults(node: Map, place: Place) -> Map:
    """A merged service whose build has a context (the project's folder) and a Dockerfile's name."""
    build = node.get("build")
    if not isinstance(build, Map):
        return node
    if "context" not in build.items:
        build = build.with_items({"context": Scalar(place.path("."), build.at)})
    dockerfile = build.items.get("dockerfile")
    if isinstance(dockerfile, Scalar) and dockerfile.value == "":
        build = build.without("dockerfile")
    elif "dockerfile_inline" not in build.items and dockerfile is None:
        build = build.with_items({"dockerfile": Scalar("Dockerfile", build.at)})
    return node.with_items({"build": build})


def _wrapped(node: Node, key: str) -> Map:
    """A scalar as ``{key: scalar}``."""
    return node if isinstance(node, Map) else Map({key: node}, node.at, {}, node.tag)


def _secret(entry: Map) -> Map:
    """With the place where the secret is found in the container."""
    source = entry.get("source")
    if not isinstance(source, Scalar) or entry.get("target") is not None:
        return entry
    return entry.with_items({"target": Scalar(f"/run/secrets/{scalar_text(source.value)}", source.at)})


def _env_file(node: Node, place: Place) -> Seq:
    entries: list[Node] = []
    for item in as_list(node).items:
        entry = _wrapped(item, "path")
        path = entry.items["path"]
        assert isinstance(path, Scalar)
        required = entry.get("required")
        changed: dict[str, Node] = {
            "path": Scalar(place.path(scalar_text(path.value)), path.at),
            "required": Scalar(boolean(required, "env_file.required") if required else True, entry.at),
        }
        entries.append(entry.with_items(changed))
    return Seq(tuple(entries), node.at, node.tag)


def _device(node: Node) -> Map:
    if isinstance(node, Map):
        return node
    assert isinstance(node, Scalar)
    source, *rest = scalar_text(node.value).split(":")
    target = rest[0] if rest else source
    rights = rest[1] if len(rest) > 1 else "rwm"
    values = {"source": source, "target": target, "permissions": rights}
    return Map({key: Scalar(value, node.at) for key, value in values.items()}, node.at)


def _times(node: Map, what: str) -> Map:
    changed: dict[str, Node] = {}
    for key in _TIMES:
        if (value := node.get(key)) is not None:
            changed[key] = Scalar(go_duration(duration(value, f"{what}.{key}")), value.at)
    return node.with_items(changed)


def _healthcheck(node: Node, what: str) -> Map:
    assert isinstance(node, Map)
    changed: dict[str, Node] = {}
    if (test := node.get("test")) is not None:
        if isinstance(test, Scalar):
            changed["test"] = Seq((Scalar("CMD-SHELL", test.at), test), test.at)
        elif isinstance(test, Seq):
            first = test.items[0] if test.items else None
            if not isinstance(first, Scalar) or first.value not in ("NONE", "CMD", "CMD-SHELL"):
                raise fail(test.at, f"{what}.test must start with NONE, CMD or CMD-SHELL")
    if (retries := node.get("retries")) is not None:
        changed["retries"] = Scalar(integer(retries, f"{what}.retries", 0), retries.at)
    if (disable := node.get("disable")) is not None:
        changed["disable"] = Scalar(boolean(disable, f"{what}.disable"), disable.at)
    return _times(node.with_items(changed), what)


def _deploy(node: Node, what: str) -> Map:
    assert isinstance(node, Map)
    changed: dict[str, Node] = {}
    if (labels := node.get("labels")) is not None:
        changed["labels"] = pairs(labels, f"{what}.labels", empty="")
    if (replicas := node.get("replicas")) is not None:
        changed["replicas"] = Scalar(integer(replicas, f"{what}.replicas", 0), replicas.at)
    for key in ("update_config", "rollback_config", "restart_policy"):
        if isinstance(part := node.get(key), Map):
            timed = _times(part, f"{what}.{key}")
            more: dict[str, Node] = {}
            for name in ("parallelism", "max_attempts"):
                if (value := part.get(name)) is not None:
                    more[name] = Scalar(integer(value, f"{what}.{key}.{name}", 0), value.at)
            if (ratio := part.get("max_failure_ratio")) is not None:
                more["max_failure_ratio"] = Scalar(number(ratio, f"{what}.{key}.max_failure_ratio", 0, 1), ratio.at)
            changed[key] = timed.with_items(more)
    if isinstance(resources := node.get("resources"), Map):
        changed["resources"] = _resources(resources, f"{what}.resources")
    return node.with_items(changed)


def _resources(node: Map, what: str) -> Map:
    changed: dict[str, Node] = {}
    for key in ("limits", "reservations"):
        if isinstance(part := node.get(key), Map):
            more: dict[str, Node] = {}
            if (cpus := part.get("cpus")) is not None:
                more["cpus"] = Scalar(number(cpus, f"{what}.{key}.cpus", 0), cpus.at)
            if (memory := part.get("memory")) is not None:
                more["memory"] = Scalar(str(size(memory, f"{what}.{key}.memory")), memory.at)
            if (pids := part.get("pids")) is not None:
                more["pids"] = Scalar(integer(pids, f"{what}.{key}.pids"), pids.at)
            changed[key] = part.with_items(more)
    return node.with_items(changed)


def _extra_hosts(node: Node) -> Seq:
    entries: list[Node] = []
    if isinstance(node, Map):
        for name, value in node.items.items():
            entries.extend(
                Scalar(f"{name}={scalar_text(v.value)}", v.at) for v in as_list(value) if isinstance(v, Scalar)
            )
    for item in node.items if isinstance(node, Seq) else ():
        text = scalar_text(item.value if isinstance(item, Scalar) else None)
        entries.append(Scalar(text if "=" in text else text.replace(":", "=", 1), item.at))
    return Seq(tuple(entries), node.at, node.tag)


def _develop(node: Map, place: Place) -> Map:
    watch = node.get("watch")
    if not isinstance(watch, Seq):
        return node
    rules: list[Node] = []
    for rule in watch.items:
        path = rule.get("path") if isinstance(rule, Map) else None
        if isinstance(rule, Map) and isinstance(path, Scalar):
            run = rule.get("exec")
            run = run if isinstance(run, Map) else Map({}, rule.at)
            command = run.get("command")
            changed: dict[str, Node] = {
                "path": Scalar(place.path(scalar_text(path.value)), path.at),
                "exec": run.with_items(
                    {"command": words(command, "exec.command") if command else Scalar(None, run.at)}
                ),
            }
            for key in ("include", "ignore"):
                if (listed := rule.get(key)) is not None:
                    changed[key] = as_list(listed)
            rule = rule.without(*(key for key in rule.items if key.startswith("x-"))).with_items(changed)
        rules.append(rule)
    return node.with_items({"watch": Seq(tuple(rules), watch.at)})
