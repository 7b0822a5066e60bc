"""The four acts. Everything they do goes through the same deployment that the commands use."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

from deploykit.control.deployment import Deployment
from deploykit.control.rollouts import RolloutRunner
from deploykit.control.versions import with_environment
from deploykit.core.rollout import Rollout
from deploykit.demo.board import Board
from deploykit.errors import DeployError
from deploykit.load.client import LoadRun
from deploykit.load.job import LoadJob
from deploykit.spec.model import Analysis, Project, RolloutPolicy, Service

SERVICE = "web"
NAME = "deploykit-demo"


@dataclass(frozen=True)
class Script:
    """``rate`` is requests/s; ``settle`` and, after the bad version, ``recovery`` are seconds of plain traffic."""

    rate: float = 200.0
    settle: float = 5.0
    recovery: float = 10.0


def stage_project(project: Project, home: Path) -> Project:
    """The example project as the demo needs it: two replicas on a free loopback port, colours set anew."""
    if SERVICE not in project.services:
        raise DeployError(f"the demo's Compose file has no service {SERVICE!r}")
    service = project.services[SERVICE]
    http = service.http_port
    if http is None:
        raise DeployError(f"service {SERVICE!r} publishes no HTTP port")
    ports = (replace(http, published=_port(http.published), host_ip="127.0.0.1"),)
    policy = service.extension.rollout
    policy = RolloutPolicy("canary", policy.steps, policy.analysis or Analysis(), 120.0)
    service = replace(
        with_environment(service, {"COLOR": "blue", "VERSION": "v1", "ERROR_RATE": "0"}),
        replicas=2,
        ports=ports,
        extension=replace(service.extension, rollout=policy),
    )
    return replace(
        project, name=NAME, directory=home, services={SERVICE: service}, networks={"default": f"{NAME}_default"}
    )


def _port(wished: int | None) -> int:
    """The port the file publishes if it is free, else any that is."""
    for port in (wished or 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise DeployError("no free port on 127.0.0.1")


class Play:
    """One performance. `run` returns when all acts are over; the caller takes everything down."""

    def __init__(self, deployment: Deployment, board: Board, script: Script) -> None:
        self.deployment = deployment
        self.board = board
        self.script = script
        self.load = LoadRun(board.second)
        board.replicas = deployment.executor.counts

    def run(self) -> None:
        self._up()
        self._scale()
        self._good()
        self._bad()
        self.load.stop()

    def _up(self) -> None:
        self.board.begin("up with 2 replicas")
        self.deployment.up()
        self.load.start(LoadJob(self.deployment.url(SERVICE), rate=self.script.rate))
        self._settle()
        self.board.end("2 replicas behind nginx")

    def _scale(self) -> None:
        self.board.begin("scale to 5 and back to 3")
        self.deployment.scale(SERVICE, 5)
        self._settle()
        self.deployment.scale(SERVICE, 3)
        self._settle()
        self.board.end("2 → 5 → 3 replicas")

    def _good(self) -> None:
        self.board.begin("a good version: v2, green")
        ended = self._roll({"COLOR": "green", "VERSION": "v2"})
        self._settle()
        self.board.end(f"v2 {ended.phase}")

    def _bad(self) -> None:
        act = self.board.begin("a bad version: v3, 20% errors")
        ended = self._roll({"COLOR": "red", "VERSION": "v3", "ERROR_RATE": "0.2"})
        self._settle(self.script.recovery)
        caught = "" if act.detected is None else f" {act.detected:.1f}s after its first traffic"
        self.board.end(f"v3 {ended.phase}{caught}")

    def _roll(self, changes: dict[str, str]) -> Rollout:
        made = self.deployment.make_version(with_environment(self._current(), changes))
        begun = self.deployment.begin_rollout(made)
        self.board.canary_since = None
        return RolloutRunner(self.deployment, begun, on_look=self._look).run()

    def _look(self, rollout: Rollout) -> None:
        routed = self.deployment.gateway.route(SERVICE)
        weighted = routed is not None and any(t.name == "canary" and t.weight > 0 for t in routed.tracks)
        if weighted and self.board.canary_since is None:
            self.board.canary_since = self.board.now
        self.board.look(rollout)

    def _current(self) -> Service:
        return self.deployment.project.services[SERVICE]

    def _settle(self, seconds: float | None = None) -> None:
        """Steady traffic for a while: what the act did is seen in the numbers before the next begins."""
        deadline = time.monotonic() + (self.script.settle if seconds is None else seconds)
        while time.monotonic() < deadline:
            time.sleep(0.1)
            if self.load.pid is not None and self.load.wait(0):
                self.load.result()
                raise DeployError("the load generator ended before the demo did")


def shortfalls(board: Board) -> list[str]:
    """What the performance did not keep of its promises; empty when all is well."""
    out = []
    for act in board.acts:
        requests, failed = board.totals(act)
        if act.ended is None:
            out.append(f"act {act.number} did not end")
            continue
        if act.number < 4 and failed:
            out.append(f"act {act.number}: {failed} of {requests} requests failed, 0 were promised")
        if act.number == 3 and "promoted" not in act.outcome:
            out.append(f"act 3: the good version was not promoted ({act.outcome})")
        if act.number == 4 and "aborted" not in act.outcome:
            out.append(f"act 4: the bad version was not taken back ({act.outcome})")
        if act.number == 4 and requests and failed / requests >= 0.005:
            out.append(f"act 4: {failed} of {requests} requests failed, under 0.5% was promised")
    return out
