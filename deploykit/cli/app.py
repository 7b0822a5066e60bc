"""What every command needs: the project, the runtime, the place for events."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploykit.control.deployment import Deployment
from deploykit.control.lock import writing
from deploykit.errors import DeployError, NotFound, RuntimeUnavailable
from deploykit.events import Sink
from deploykit.runtimes.base import Runtime
from deploykit.spec.model import Project
from deploykit.views.sinks import sink


@dataclass
class App:
    """The global options. Nothing is loaded before it is asked for."""

    files: tuple[Path, ...] = ()
    project_name: str | None = None
    project_directory: Path | None = None
    env_files: tuple[Path, ...] = ()
    profiles: tuple[str, ...] = ()
    runtime_name: str = "auto"
    progress: str = "auto"
    dry_run: bool = False
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def project(self) -> Project:
        """The project of the Compose files. Raises SpecError."""
        from deploykit.spec.load import load

        return load(
            self.files or None,
            directory=self.project_directory,
            project_name=self.project_name,
            env_files=self.env_files,
            environ=self.environ,
            profiles=self.profiles,
        )

    def sink(self) -> Sink:
        return sink(self.progress)

    def runtime(self, root: Path) -> Runtime:
        """The runtime that was asked for; with `auto` Docker where an engine answers. `root` is ``.deploykit``."""
        if self.runtime_name in ("docker", "auto"):
            from deploykit.runtimes.docker import DockerRuntime

            if self.runtime_name == "docker":
                docker = DockerRuntime(root)
                docker.ping()
                return docker
            try:
                docker = DockerRuntime(root)
                docker.ping()
                return docker
            except RuntimeUnavailable:
                pass
        from deploykit.runtimes.process import ProcessRuntime

        return ProcessRuntime(root)

    def folder(self) -> Path:
        """Where the project's files are, as far as the options say."""
        return self.project_directory or (self.files[0].parent if self.files else Path.cwd())

    @contextmanager
    def deployment(self, project: Project | None = None, *, repair: bool = False) -> Iterator[Deployment]:
        """The project on its runtime, for reading. `repair` puts a broken state file aside. Raises DeployError."""
        project = project or self.project()
        root = project.directory / ".deploykit"
        runtime = self.runtime(root)
        try:
            deployment = Deployment(runtime, project, self.sink(), repair=repair)
        except OSError as error:
            raise DeployError(
                f"{root}: the state folder cannot be used: {error.strerror or error}",
                hint="Check who owns it, and that it is a folder.",
            ) from error
        try:
            yield deployment
        finally:
            deployment.close()
            runtime.close()

    @contextmanager
    def changing(
        self, command: str, project: Project | None = None, *, repair: bool = False, wait: float = 10.0
    ) -> Iterator[Deployment]:
        """The same, holding the project's lock, waited for up to `wait` seconds. Raises Busy."""
        with (
            self.deployment(project, repair=repair) as deployment,
            writing(deployment.runtime.state_dir(deployment.project.name), command, wait=wait),
        ):
            yield deployment

    def service_url(self, name: str | None) -> str:
        """For `load`: where `name` is reached; without a name, the first service that publishes HTTP."""
        with self.deployment() as deployment:
            services = deployment.project.services
            names = [name] if name else [n for n, s in services.items() if s.http_port is not None]
            if not names:
                raise NotFound(f"no service of {deployment.project.name} publishes an HTTP port")
            return deployment.url(names[0])
