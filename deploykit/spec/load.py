"""Compose files -> one frozen `Project`. The semantics are those of the Compose specification.

The order: read, replace variables, check, bring into one form, carry out ``include`` and ``extends``, merge, then
settle what holds between services. `SpecError` names file:line:column.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploykit.spec import canonical, dotenv, extends, files, project, schema
from deploykit.spec.config import project_config
from deploykit.spec.interpolate import Interpolator
from deploykit.spec.merge import clean, merge
from deploykit.spec.model import Position, Project, Service, Warning
from deploykit.spec.mounts import Place
from deploykit.spec.nodes import Map, Node, Scalar, Seq, fail, kind, parse, plain, scalar_text
from deploykit.spec.schema import nearest
from deploykit.spec.service import build_service
from deploykit.spec.support import warn_unsupported

MAX_INCLUDES = 50
_SECTIONS = ("networks", "volumes", "secrets", "configs")


def load(
    files: Sequence[Path] | None,
    *,
    directory: Path | None,
    project_name: str | None,
    env_files: Sequence[Path] = (),
    environ: Mapping[str, str],
    profiles: Sequence[str] = (),
) -> Project:
    """Read a project.

    Parameters: ``files`` in the order of ``-f`` (None: look for the usual names in the working directory and its
    parents; ``-`` is standard input); ``directory`` is ``--project-directory`` (None: that of the first file);
    ``project_name`` is ``-p``; ``env_files`` replace ``.env``; ``environ`` wins over both; ``profiles`` are added to
    COMPOSE_PROFILES.

    Raises `SpecError` on the first fault; its details hold the further ones of the same kind.
    """
    return _Loader(files, directory, project_name, env_files, environ, profiles).project()


class _Loader:
    def __init__(
        self,
        paths: Sequence[Path] | None,
        directory: Path | None,
        asked_name: str | None,
        env_files: Sequence[Path],
        environ: Mapping[str, str],
        profiles: Sequence[str],
    ) -> None:
        self.paths = files.sequence(paths, (directory or Path.cwd()).absolute(), environ)
        first = Path.cwd() if self.paths[0] == files.STDIN else self.paths[0].parent
        self.directory = Path(os.path.normpath((directory or first).absolute()))
        self.asked_name = asked_name
        self.warnings: list[Warning] = []
        self.read_files: list[Path] = []
        self.environ = {**self._env_files(env_files, environ), **environ}
        more = self.environ.get("COMPOSE_PROFILES", "")
        self.profiles = {*profiles, *(name.strip() for name in more.split(",") if name.strip())}
        self.interpolator = Interpolator(self.environ, self.warnings)

    def _env_files(self, env_files: Sequence[Path], environ: Mapping[str, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        default = self.directory / ".env"
        for path in env_files or ([default] if default.is_file() else []):
            found.update(dotenv.read(path, {**found, **environ}))
        return found

    def project(self) -> Project:
        parsed = [self._parse(path) for path in self.paths]
        name = self._name(parsed)
        self.environ["COMPOSE_PROJECT_NAME"] = name
        merged: Map | None = None
        for path, document in zip(self.paths, parsed, strict=True):
            one = self._resolve(document, path, Place(self.directory, self.environ), ())
            cleaned = clean(one) if merged is None else one
            assert isinstance(cleaned, Map)
            merged = cleaned if merged is None else merge(merged, cleaned)
        assert merged is not None
        return self._finish(name, merged)

    def _parse(self, path: Path, at: Position | None = None) -> Map:
        shown = files.show(path)
        document = parse(files.read(path, at=at), shown)
        self.read_files.append(path)
        if not isinstance(document, Map):
            hint = "a Compose file has at least `services:`"
            raise fail(document.at, f"a Compose file must be a mapping, not {kind(document)}", hint)
        return document

    def _name(self, documents: Sequence[Map]) -> str:
        written: tuple[str, Position] | None = None
        for document in documents:
            node = document.get("name")
            if isinstance(node, Scalar) and isinstance(node.value, str):
                done = Interpolator(self.environ).node(node)
                assert isinstance(done, Scalar)
                written = scalar_text(done.value), node.at
        return files.project_name(self.asked_name, self.environ, written, self.directory)

    def _resolve(self, document: Map, path: Path, place: Place, trail: tuple[Path, ...]) -> Map:
        """One file in the one form, its ``include`` and ``extends`` carried out."""
        interpolated = self.interpolator.node(document)
        cleaned = clean(interpolated)
        assert isinstance(interpolated, Map)
        assert isinstance(cleaned, Map)
        schema.check(cleaned)
        if "version" in document.items:
            self.warnings.append(Warning(document.key_at("version"), "'version' is obsolete and not acted on"))
        one = canonical.document(interpolated, place)

        def read(other: Path, asked: Node) -> Map:
            base = Place(other.parent, self.environ)
            found = self.interpolator.node(self._parse(other, asked.at))
            checked = clean(found)
            assert isinstance(found, Map)
            assert isinstance(checked, Map)
            schema.check(checked)
            return canonical.document(found, base)

        one = extends.resolve(one, place, read, files.show(path))
        include = one.get("include")
        if isinstance(include, Seq):
            one = self._include(one.without("include"), include, place, (*trail, path.absolute()))
        return one

    def _include(self, document: Map, include: Seq, place: Place, trail: tuple[Path, ...]) -> Map:
        if len(trail) > MAX_INCLUDES:
            raise fail(include.at, f"includes are nested deeper than {MAX_INCLUDES}")
        for entry in include.items:
            node = entry.get("path") if isinstance(entry, Map) else entry
            if node is None:
                raise fail(entry.at, "an include needs the key 'path'")
            listed = canonical.as_list(node).items
            paths = [Path(place.path(scalar_text(item.value))) for item in listed if isinstance(item, Scalar)]
            folder = entry.get("project_directory") if isinstance(entry, Map) else None
            base = Path(place.path(scalar_text(folder.value))) if isinstance(folder, Scalar) else paths[0].parent
            inner = _Loader([*paths], base, "included", (), self.environ, ())
            given = entry.get("env_file") if isinstance(entry, Map) else None
            for env in canonical.as_list(given).items if given is not None else ():
                env_path = Path(place.path(scalar_text(env.value if isinstance(env, Scalar) else None)))
                inner.environ = {**dotenv.read(env_path, inner.environ, at=env.at), **self.environ}
            inner.interpolator = Interpolator(inner.environ, self.warnings)
            included: Map | None = None
            for path in paths:
                if path in trail:
                    raise fail(node.at, f"files include each other in a circle: {path}")
                inner_place = Place(base, inner.environ)
                one = clean(inner._resolve(inner._parse(path, node.at), path, inner_place, trail))
                assert isinstance(one, Map)
                included = one if included is None else merge(included, one)
            self.read_files.extend(inner.read_files)
            self.warnings.extend(w for w in inner.warnings if w not in self.warnings)
            if included is not None:
                document = _combine(document, included.without("name", "version"), node.at)
        return document

    def _finish(self, name: str, merged: Map) -> Project:
        declared = merged.get("services")
        everything = declared if isinstance(declared, Map) else Map({}, merged.at)
        chosen = project.enabled(everything, self.profiles)
        place = Place(self.directory, self.environ)
        nodes: dict[str, Map] = {}
        for key, node in chosen.items.items():
            assert isinstance(node, Map)
            node = project.implied_dependencies(key, node)
            node = canonical.with_build_defaults(project.environment(key, node, place), place)
            node = project.without_disabled(node, chosen, everything)
            nodes[key] = project.with_default_network(node)
        services: dict[str, Service] = {}
        for key, node in nodes.items():
            marker = Scalar(None, chosen.key_at(key))
            project.check_platform(key, node)
            services[key] = build_service(key, node, marker, self.warnings.append)
            warn_unsupported(key, node, self.warnings.append)
        project.check_dependencies(nodes, everything)
        sections = {section: self._section(section, name, merged, nodes) for section in _SECTIONS}
        project.check_ports(services, nodes)
        for key in (key for key in merged.items if key == "models"):
            self.warnings.append(Warning(merged.key_at(key), f"'{key}' is not acted on"))
        networks, volumes = sections["networks"], sections["volumes"]
        return Project(
            name=name,
            directory=self.directory,
            services=services,
            networks={key: _engine_name(node) for key, node in networks.items()},
            volumes={key: _engine_name(node) for key, node in volumes.items()},
            external_networks=frozenset(key for key, node in networks.items() if node.get("external")),
            external_volumes=frozenset(key for key, node in volumes.items() if node.get("external")),
            warnings=tuple(self.warnings),
            files=tuple(self.read_files),
            config=project_config(name, nodes, sections, _extensions(merged)),
        )

    def _section(self, section: str, name: str, merged: Map, nodes: Mapping[str, Map]) -> dict[str, Map]:
        """The networks (or volumes, ...) in use, each with its engine name."""
        wanted = project.used(nodes.values(), section)
        given = merged.get(section)
        declared: Mapping[str, Node] = given.items if isinstance(given, Map) else {}
        found: dict[str, Map] = {}
        for key, at in wanted.items():
            entry = declared.get(key)
            if entry is None and not (section == "networks" and key == "default"):
                hint = f"add `{key}:` under the top-level `{section}:`"
                raise fail(at, f"the {section[:-1]} '{key}' is not declared{nearest(key, declared)}", hint)
            found[key] = _named(entry if isinstance(entry, Map) else Map({}, at), key, name, section)
        return found


def _extensions(merged: Map) -> dict[str, Node]:
    return {key: node for key, node in merged.items.items() if key.startswith("x-")}


def _engine_name(node: Map) -> str:
    value = node.items["name"]
    return scalar_text(value.value) if isinstance(value, Scalar) else ""


def _named(node: Map, key: str, project_name: str, section: str) -> Map:
    external = node.get("external")
    own_name = node.get("name")
    is_external = False
    if isinstance(external, Map):
        is_external = True
        own_name = own_name or external.get("name")
    elif isinstance(external, Scalar):
        is_external = scalar_text(external.value).lower() in ("true", "yes", "on", "1")
    default = key if is_external else f"{project_name}_{key}"
    items: dict[str, Node] = {"name": own_name or Scalar(default, node.at)}
    items.update((k, v) for k, v in node.items.items() if k not in ("name", "external"))
    if is_external:
        items["external"] = Scalar(True, node.at)
    if section == "networks":
        items.setdefault("ipam", Map({}, node.at))
    return Map(items, node.at, node.keys)


def _combine(document: Map, included: Map, at: Position) -> Map:
    """Included entries join the document; the same name with other content is an error, as in Compose."""
    changed: dict[str, Node] = {}
    for section in ("services", *_SECTIONS):
        more, own = included.get(section), document.get(section)
        if not isinstance(more, Map):
            continue
        mine = own if isinstance(own, Map) else Map({}, at)
        for key, node in more.items.items():
            if key in mine.items and plain(mine.items[key]) != plain(node):
                raise fail(mine.key_at(key), f"{section}.{key} is also in an included file, at {more.key_at(key)}")
        changed[section] = Map({**more.items, **mine.items}, mine.at, {**more.keys, **mine.keys})
    return document.with_items(changed)
