"""What a project is meant to be: versions, sizes, rollouts, events. One SQLite file (WAL), readable by its owner only.

What *runs* is never read from here; the runtime's own labels say that.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cattrs

from deploykit.core.rollout import Rollout
from deploykit.errors import DeployError
from deploykit.events import Event
from deploykit.spec.model import Service

T = TypeVar("T")

_SCHEMA = """
create table if not exists version (
    service text, version text, label text, image text, spec text, created_at real, primary key (service, version));
create table if not exists service (service text primary key, stable text, replicas integer);
create table if not exists rollout (id text primary key, service text, started_at real, over integer, state text);
create table if not exists command (id integer primary key, service text, verb text, at real);
create table if not exists event (
    id integer primary key, at real, kind text, service text, text text, cause text, data text);
"""


@dataclass(frozen=True)
class Version:
    """One image plus one configuration of a service. ``label`` is for people (v1, v2 or the image's tag)."""

    service: str
    version: str
    label: str
    image: str
    spec: Service


@dataclass(frozen=True)
class Size:
    """The stable version of a service and how many replicas it should have."""

    service: str
    stable: str
    replicas: int


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file and look at all of it, so that a broken one is found now and not in mid-change."""
    path.touch(mode=0o600, exist_ok=True)
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=normal")
        db.executescript(_SCHEMA)
        said = db.execute("pragma quick_check(1)").fetchone()[0]
        if said != "ok":
            raise sqlite3.DatabaseError(said.splitlines()[-1])
    except BaseException:
        db.close()
        raise
    return db


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    return converter


class Store:
    """Opens (and creates) the state file. Raises DeployError when it is not one of ours or cannot be read.

    With `repair` a broken file is put aside as ``state.db.broken`` and a new one begun; ``repaired`` then says so.
    """

    def __init__(self, path: Path, *, repair: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._convert = _converter()
        self.repaired = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._db = _connect(path)
            except sqlite3.DatabaseError as error:
                if not repair or isinstance(error, sqlite3.OperationalError):
                    raise
                path.replace(path.with_name(path.name + ".broken"))
                for more in ("-wal", "-shm"):
                    path.with_name(path.name + more).unlink(missing_ok=True)
                self._db = _connect(path)
                self.repaired = True
        except (sqlite3.Error, OSError) as error:
            raise DeployError(
                f"{path}: the state file cannot be used: {error}",
                hint="`deploykit down` works all the same, and puts a broken file aside.",
            ) from error

    def close(self) -> None:
        self._db.close()

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise DeployError(f"{self.path}: {error}") from error

    def _load(self, kind: type[T], text: str) -> T:
        try:
            return self._convert.structure(json.loads(text), kind)
        except Exception as error:
            raise DeployError(f"{self.path}: a record of another deploykit version: {error}") from error

    def _dump(self, value: object) -> str:
        return json.dumps(self._convert.unstructure(value))

    # versions

    def add_version(self, version: Version, now: float) -> None:
        self._all(
            "insert or replace into version values (?,?,?,?,?,coalesce((select created_at from version"
            " where service=? and version=?), ?))",
            version.service,
            version.version,
            version.label,
            version.image,
            self._dump(version.spec),
            version.service,
            version.version,
            now,
        )

    def version(self, service: str, version: str) -> Version | None:
        rows = self._all("select label, image, spec from version where service=? and version=?", service, version)
        if not rows:
            return None
        label, image, spec = rows[0]
        return Version(service, version, label, image, self._load(Service, spec))

    def labels(self, service: str) -> dict[str, str]:
        """Version to label, oldest first."""
        rows = self._all("select version, label from version where service=? order by created_at, rowid", service)
        return dict(rows)

    # sizes

    def size(self, service: str) -> Size | None:
        rows = self._all("select stable, replicas from service where service=?", service)
        return Size(service, rows[0][0], rows[0][1]) if rows else None

    def sizes(self) -> list[Size]:
        return [Size(*row) for row in self._all("select service, stable, replicas from service order by service")]

    def set_size(self, size: Size) -> None:
        self._all("insert or replace into service values (?,?,?)", size.service, size.stable, size.replicas)

    def forget_service(self, service: str) -> None:
        self._all("delete from service where service=?", service)

    def forget_services(self) -> None:
        """After `down`: nothing is wanted any more. Versions, rollouts and events stay as history."""
        self._all("delete from service")
        self._all("delete from command")

    # rollouts

    def save_rollout(self, rollout: Rollout) -> None:
        self._all(
            "insert or replace into rollout values (?,?,?,?,?)",
            rollout.id,
            rollout.service,
            rollout.started_at,
            int(rollout.over),
            self._dump(rollout),
        )

    def rollout(self, service: str) -> Rollout | None:
        """The newest rollout of `service`, running or not."""
        rows = self._all(
            "select state from rollout where service=? order by started_at desc, rowid desc limit 1", service
        )
        return self._load(Rollout, rows[0][0]) if rows else None

    def rollouts(self, service: str) -> list[Rollout]:
        rows = self._all("select state from rollout where service=? order by started_at", service)
        return [self._load(Rollout, row[0]) for row in rows]

    # what another terminal asks of a running rollout

    def ask(self, service: str, verb: str, now: float) -> None:
        self._all("insert into command (service, verb, at) values (?,?,?)", service, verb, now)

    def asked(self, service: str) -> list[str]:
        """The verbs asked since the last call, oldest first."""
        with self._lock:
            rows = self._all("select id, verb from command where service=? order by id", service)
            for identity, _ in rows:
                self._all("delete from command where id=?", identity)
        return [verb for _, verb in rows]

    # events

    def add_event(self, event: Event) -> None:
        self._all(
            "insert into event (at, kind, service, text, cause, data) values (?,?,?,?,?,?)",
            event.at,
            event.kind,
            event.service,
            event.text,
            event.cause,
            json.dumps(event.data),
        )

    def events(self, *, since: float = 0.0) -> list[Event]:
        rows = self._all("select kind, text, at, service, cause, data from event where at >= ? order by id", since)
        return [Event(k, t, at, s, c, json.loads(d)) for k, t, at, s, c, d in rows]
