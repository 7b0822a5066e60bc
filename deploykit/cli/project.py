"""Compose's own verbs: up, down, ps, scale, build, config, logs, restart."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import click

from deploykit.cli.app import App
from deploykit.cli.attended import run_in_background, run_rollout
from deploykit.cli.options import as_format, pass_app
from deploykit.control.deployment import Deployment
from deploykit.control.lock import holder
from deploykit.control.rollouts import RolloutRunner
from deploykit.core.replica import Replica
from deploykit.errors import UsageError
from deploykit.views.tables import ago, print_json, print_table


def pairs(values: tuple[str, ...], what: str) -> dict[str, int]:
    """``web=5`` texts to a mapping. Raises UsageError."""
    out = {}
    for value in values:
        name, sign, number = value.partition("=")
        if not sign or not number.isdigit():
            raise UsageError(f"{what} {value!r} is not SERVICE=NUMBER", hint=f"For example: {what} web=5")
        out[name] = int(number)
    return out


@click.command(epilog="\b\nExamples:\n  deploykit up -d\n  deploykit up -d --scale web=5\n  deploykit --dry-run up")
@click.argument("services", nargs=-1)
@click.option("-d", "--detach", is_flag=True, help="Return once all is healthy.")
@click.option("--scale", multiple=True, metavar="SERVICE=N", help="Replicas instead of the file's number.")
@click.option("--no-build", is_flag=True, help="Use the images that are there.")
@pass_app
def up(app: App, services: tuple[str, ...], detach: bool, scale: tuple[str, ...], no_build: bool) -> None:
    """Build, start and route the services; a changed service moves to its new version by its strategy."""
    sizes = pairs(scale, "--scale")
    with app.changing("up") as deployment:
        _warn(deployment)
        if app.dry_run:
            _print_up_plan(deployment, services, sizes)
            return
        began = time.monotonic()
        pending = deployment.up(scale=sizes, build=not no_build, only=services)
        for rollout in pending:
            if detach:
                RolloutRunner(deployment, rollout).enter()
            else:
                run_rollout(app, deployment, rollout)
        replicas = [r for r in deployment.observe() if r.running]
        took = time.monotonic() - began
        deployment.say("project.up", f"{deployment.project.name} is up: {len(replicas)} replicas in {took:.1f}s")
        for name, service in deployment.project.services.items():
            port = service.http_port
            if port is not None and port.published is not None:
                deployment.say("service.url", f"{name} answers at {deployment.url(name)}", name)
        if not detach:
            _attached(deployment)
    for rollout in pending:
        run_in_background(app, rollout.service)
        click.echo(
            f"{rollout.service}: the move to {rollout.canary_label} goes on in the background,"
            f" see `deploykit rollout status {rollout.service}`",
            err=True,
        )


def _warn(deployment: Deployment) -> None:
    for warning in deployment.project.warnings:
        click.echo(f"{click.style('warning:', fg='yellow')} {warning}", err=True)


def _print_up_plan(deployment: Deployment, services: tuple[str, ...], sizes: dict[str, int]) -> None:
    seen = deployment.observe()
    for name, service in deployment.project.services.items():
        if services and name not in services:
            continue
        made = deployment.make_version(service)
        click.echo(f"# {name}: version {made.version} ({made.label})")
        click.echo(deployment.plan_up(made, sizes.get(name, service.replicas), seen).text())


def _attached(deployment: Deployment) -> None:
    """Follow the logs until Ctrl-C, then stop what was started, as Compose does."""
    click.echo("Attached; Ctrl-C stops the project.", err=True)
    try:
        _follow([r for r in deployment.observe() if r.running], deployment, tail=0)
    except KeyboardInterrupt:
        click.echo("Stopping.", err=True)
        deployment.down()
        raise


@click.command()
@click.option("-v", "--volumes", is_flag=True, help="Remove the project's named volumes as well.")
@pass_app
def down(app: App, volumes: bool) -> None:
    """Stop and remove replicas, proxy and networks."""
    if not app.dry_run:
        _end_rollouts(app)
    with app.changing("down", repair=True) as deployment:
        if app.dry_run:
            for replica in deployment.observe():
                click.echo(f"stop   {replica.service}-{replica.number} ({replica.version})")
            return
        deployment.down(volumes=volumes)


def _end_rollouts(app: App) -> None:
    """A rollout that another process runs would hold the project: ask it to end."""
    with app.deployment(repair=True) as deployment:
        if holder(deployment.runtime.state_dir(deployment.project.name)):
            for size in deployment.store.sizes():
                if deployment.active_rollout(size.service) is not None:
                    deployment.store.ask(size.service, "abort", time.time())


@click.command()
@click.argument("services", nargs=-1)
@as_format
@pass_app
def ps(app: App, services: tuple[str, ...], form: str) -> None:
    """List replicas: version, track, health, address."""
    from deploykit.control.health import ask

    with app.deployment() as deployment:
        deployment.known(services)
        seen = [r for r in deployment.observe() if not services or r.service in services]

        def health(replica: Replica) -> str:
            if not replica.running:
                return ""
            version = deployment.store.version(replica.service, replica.version)
            if version is None:
                return replica.health
            return "healthy" if ask(deployment.runtime, replica, version.spec).ready else "unhealthy"

        with ThreadPoolExecutor(16) as pool:
            healths = list(pool.map(health, seen))
        rows = [
            {
                "project": r.project,
                "service": r.service,
                "track": _track(deployment, r),
                "version": r.label,
                "number": r.number,
                "replica": r.name,
                "state": r.state,
                "health": h,
                "address": r.address,
                "image": r.image,
                "started_at": r.started_at,
            }
            for r, h in zip(seen, healths, strict=True)
        ]
    if form == "json":
        print_json(rows)
        return
    now = time.time()
    columns = ("REPLICA", "SERVICE", "VERSION", "TRACK", "STATE", "HEALTH", "UP", "ADDRESS")
    keys = ("replica", "service", "version", "track", "state", "health")
    print_table(
        columns,
        [[*(row[k] for k in keys), ago(r.started_at, now), row["address"]] for r, row in zip(seen, rows, strict=True)],
    )


def _track(deployment: Deployment, replica: Replica) -> str:
    active = deployment.active_rollout(replica.service)
    return "canary" if active is not None and replica.version == active.canary else "stable"


@click.command(epilog="\b\nExample:\n  deploykit scale web=5")
@click.argument("targets", nargs=-1, required=True, metavar="SERVICE=N...")
@pass_app
def scale(app: App, targets: tuple[str, ...]) -> None:
    """Change the number of replicas; no request is lost on the way up or down."""
    sizes = pairs(targets, "scale")
    with app.changing("scale") as deployment:
        deployment.known(sizes)
        for name, replicas in sizes.items():
            if app.dry_run:
                click.echo(deployment.plan_scale(name, replicas, deployment.observe()).text())
            else:
                deployment.scale(name, replicas)


@click.command()
@click.argument("services", nargs=-1)
@pass_app
def build(app: App, services: tuple[str, ...]) -> None:
    """Build images without starting anything."""
    with app.changing("build") as deployment:
        deployment.known(services)
        for name, service in deployment.project.services.items():
            if service.build is not None and (not services or name in services):
                made = deployment.make_version(service)
                click.echo(f"{name}  {made.version}  {made.label}  {made.image}")


@click.command()
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="Output form.")
@click.option("--services", "only_names", is_flag=True, help="Print the services' names only.")
@click.option("-q", "--quiet", is_flag=True, help="Only check.")
@pass_app
def config(app: App, form: str, only_names: bool, quiet: bool) -> None:
    """Check the Compose files and print what they come to."""
    project = app.project()
    for warning in project.warnings:
        click.echo(f"{click.style('warning:', fg='yellow')} {warning}", err=True)
    if quiet:
        return
    if only_names:
        click.echo("\n".join(project.services))
    elif form == "json":
        print_json(project.config)
    else:
        import yaml

        yaml.safe_dump(dict(project.config), sys.stdout, sort_keys=False)


@click.command()
@click.argument("services", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on as new lines come.")
@click.option("-n", "--tail", type=int, default=None, help="Only the last lines of each replica.")
@pass_app
def logs(app: App, services: tuple[str, ...], follow: bool, tail: int | None) -> None:
    """Show what replicas wrote."""
    with app.deployment() as deployment:
        deployment.known(services)
        chosen = [r for r in deployment.observe() if not services or r.service in services]
        if follow:
            _follow(chosen, deployment, tail=tail)
            return
        for replica in chosen:
            for line in deployment.runtime.logs(replica, tail=tail):
                click.echo(f"{replica.service}-{replica.number}  | {line}")


def _follow(replicas: list[Replica], deployment: Deployment, *, tail: int | None) -> None:
    import threading

    def one(replica: Replica) -> None:
        for line in deployment.runtime.logs(replica, tail=tail, follow=True):
            click.echo(f"{replica.service}-{replica.number}  | {line}")

    threads = [threading.Thread(target=one, args=(r,), daemon=True) for r in replicas]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(timeout=0.2)


@click.command()
@click.argument("services", nargs=-1)
@pass_app
def restart(app: App, services: tuple[str, ...]) -> None:
    """Replace each replica by a new one of the same version, one at a time; no request is lost."""
    from deploykit.core.plan import renew

    with app.changing("restart") as deployment:
        deployment.known(services)
        for size in deployment.store.sizes():
            if services and size.service not in services:
                continue
            plan = renew(size.service, deployment.observe())
            if app.dry_run:
                click.echo(plan.text())
            else:
                deployment.executor.run(plan)
