"""What is known of a replica: one JSON file each, written before it starts, removed with it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploykit.core.replica import Replica, State
from deploykit.runtimes.process.supervisor import Info, write

# A stopping replica still answers what it was sent, so it counts as running until it is gone
_STATES: dict[str, State] = {
    "STARTING": "running",
    "RUNNING": "running",
    "STOPPING": "running",
    "BACKOFF": "restarting",
    "STOPPED": "exited",
    "EXITED": "exited",
    "FATAL": "exited",
    "UNKNOWN": "dead",
}


@dataclass(frozen=True)
class Record:
    """``port`` is the one chosen on this machine (0: none); ``started`` is Unix time; ``stop_signal`` without SIG."""

    name: str
    project: str
    service: str
    version: str
    label: str
    number: int
    image: str
    port: int
    started: float
    restart: str
    stop_signal: str
    stop_grace: float

    def replica(self, info: Info | None) -> Replica:
        state: State = _STATES.get(info.state, "dead") if info else "exited"
        restarts = self.restart in {"always", "unless-stopped"}
        if info and info.state == "EXITED" and (restarts or (self.restart == "on-failure" and info.exit_code)):
            state = "restarting"
        return Replica(
            id=self.name,
            name=self.name,
            project=self.project,
            service=self.service,
            version=self.version,
            label=self.label,
            number=self.number,
            state=state,
            address=f"127.0.0.1:{self.port}" if self.port else None,
            image=self.image,
            started_at=info.started if info and info.started > self.started + 1.5 else self.started,
            exit_code=info.exit_code if info and state in {"exited", "dead"} else None,
        )


class Records:
    """The records in ``folder`` (0700)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def save(self, record: Record, run: dict[str, Any]) -> None:
        """``run`` is what launch.py reads: command, workdir, environment."""
        write(self.path(record.name), json.dumps({"replica": asdict(record), "run": run}, indent=1))

    def get(self, name: str) -> Record | None:
        try:
            return Record(**json.loads(self.path(name).read_text(encoding="utf-8"))["replica"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def run(self, name: str) -> dict[str, Any] | None:
        """What `save` was given for launch.py."""
        try:
            found: dict[str, Any] = json.loads(self.path(name).read_text(encoding="utf-8"))["run"]
            return found
        except (OSError, ValueError, KeyError):
            return None

    def all(self) -> list[Record]:
        found = []
        with contextlib.suppress(OSError):
            for path in self.folder.glob("*.json"):
                record = self.get(path.stem)
                if record:
                    found.append(record)
        return sorted(found, key=lambda r: (r.service, r.number))

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)
