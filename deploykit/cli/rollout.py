"""`deploykit rollout`: start, status, pause, resume, promote, abort, history."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import click

from deploykit.cli.app import App
from deploykit.cli.attended import run_in_background, run_rollout
from deploykit.cli.options import as_format, pass_app
from deploykit.control.deployment import Deployment
from deploykit.control.lock import holder, writing
from deploykit.control.versions import with_environment
from deploykit.core import rollout as rollouts
from deploykit.core.rollout import Rollout
from deploykit.errors import DeployError, NotFound, UsageError
from deploykit.spec.model import RolloutPolicy
from deploykit.views import rollout as view
from deploykit.views.tables import ago, print_json, print_table

BACKGROUND_WAIT = 3600.0  # seconds: rollouts of several services in the background go one after the other


@click.group()
def rollout() -> None:
    """Move a service to a new version, a few percent at a time, judged on its traffic."""


@rollout.command(
    epilog="""\b
Examples:
  deploykit rollout start web --env COLOR=green
  deploykit rollout start web --image shop:2.1"""
)
@click.argument("service")
@click.option("--env", "environment", multiple=True, metavar="K=V", help="Change an environment variable.")
@click.option("--image", help="Another image.")
@click.option("--strategy", type=click.Choice(["canary", "rolling"]), help="[default: the file's]")
@click.option("-d", "--detach", is_flag=True, help="Go on in the background.")
@pass_app
def start(
    app: App, service: str, environment: tuple[str, ...], image: str | None, strategy: str | None, detach: bool
) -> None:
    """Begin a rollout; stays attached until it ends (exit 0 promoted, 3 aborted)."""
    changes = {}
    for text in environment:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"--env {text!r} is not KEY=VALUE", hint="For example: --env COLOR=green")
        changes[name] = value
    with app.changing("rollout start") as deployment:
        spec = _spec(deployment, service)
        spec = with_environment(spec, changes)
        if image is not None:
            spec = replace(spec, image=image, build=None)
        policy = spec.extension.rollout
        if strategy is not None:
            policy = RolloutPolicy("rolling" if strategy == "rolling" else "canary", policy.steps, policy.analysis)
            spec = replace(spec, extension=replace(spec.extension, rollout=policy))
        made = deployment.make_version(spec)
        if policy.strategy == "rolling":
            if app.dry_run:
                click.echo(deployment.plan_up(made, spec.replicas, deployment.observe()).text())
            else:
                deployment.rolling(made)
            return
        if app.dry_run:
            _dry(deployment, made.version, spec.replicas, service)
            return
        begun = deployment.begin_rollout(made)
        if not detach:
            run_rollout(app, deployment, begun)
            return
    run_in_background(app, service)
    click.echo(f"{service}: rollout {begun.id} goes on in the background; `deploykit rollout status {service}`")


def _dry(deployment: Deployment, version: str, replicas: int, service: str) -> None:
    from deploykit.core.plan import Desired, Want, reconcile

    size = deployment.store.size(service)
    if size is None:
        raise NotFound(f"service {service!r} is not up", hint="Run `deploykit up -d` first.")
    wanted = Desired(service, Want(size.stable, size.replicas), Want(version, 1), 0)
    click.echo(reconcile(wanted, deployment.observe()).text())


def _spec(deployment: Deployment, service: str) -> Any:
    """What runs now, as the base for a change: the stable version's own definition."""
    size = deployment.store.size(service)
    known = deployment.store.version(service, size.stable) if size else None
    if known is None:
        raise NotFound(f"service {service!r} is not up", hint="Run `deploykit up -d` first.")
    current = deployment.project.services.get(service)
    if current is None:
        return known.spec
    return replace(known.spec, extension=current.extension)


@rollout.command("carry-on", hidden=True)
@click.argument("service")
@pass_app
def carry_on(app: App, service: str) -> None:
    """Run the rollout that is under way to its end."""
    with app.changing("rollout", wait=BACKGROUND_WAIT) as deployment:
        active = deployment.active_rollout(service)
        if active is not None:
            run_rollout(app, deployment, active)


@rollout.command()
@click.argument("service")
@click.option("--watch", is_flag=True, help="Until it ends.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Output form.")
@pass_app
def status(app: App, service: str, watch: bool, form: str) -> None:
    """Where a rollout stands: weight, evidence, users hurt."""
    with app.deployment() as deployment:
        while True:
            newest = _newest(deployment, service)
            if form == "json":
                print_json(view.as_json(newest))
            else:
                click.echo(view.block(newest))
            if not watch or newest.over:
                return
            time.sleep(1)
            click.echo()


def _newest(deployment: Deployment, service: str) -> Rollout:
    newest = deployment.store.rollout(service)
    if newest is None:
        raise NotFound(
            f"{service} has had no rollout", hint=f"Begin one: `deploykit rollout start {service} --env KEY=VALUE`."
        )
    return newest


def _ask(app: App, service: str, verb: rollouts.Command) -> None:
    """Hand a verb to the command that runs the rollout, or carry it out here when none does."""
    with app.deployment() as deployment:
        active = deployment.active_rollout(service)
        if active is None:
            newest = _newest(deployment, service)
            raise DeployError(f"{service}: the last rollout is over ({newest.phase})")
        folder = deployment.runtime.state_dir(deployment.project.name)
        if holder(folder):
            deployment.store.ask(service, verb, time.time())
            _await_taken(deployment, active, verb)
            return
        with writing(folder, f"rollout {verb}"):
            deployment.observe()
            moved = rollouts.command(active, verb, time.time())
            deployment.store.save_rollout(moved)
            deployment.apply(moved)
            click.echo(view.line(moved))
    if not moved.over and moved.phase == "progressing":
        run_in_background(app, service)


def _await_taken(deployment: Deployment, before: Rollout, verb: str, *, limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        now = deployment.store.rollout(before.service)
        if now is not None and (now.phase, now.step, now.reason) != (before.phase, before.step, before.reason):
            click.echo(view.line(now))
            return
        time.sleep(0.1)
    raise DeployError(
        f"{before.service}: `{verb}` was not taken up within {limit:g}s",
        hint="The command that runs the rollout may hang; end it, then run this again.",
    )


@rollout.command()
@click.argument("service")
@pass_app
def pause(app: App, service: str) -> None:
    """Hold the rollout at its weight."""
    _ask(app, service, "pause")


@rollout.command()
@click.argument("service")
@pass_app
def resume(app: App, service: str) -> None:
    """Let a paused rollout go on."""
    _ask(app, service, "resume")


@rollout.command()
@click.argument("service")
@click.option("--full", is_flag=True, help="All the way, past every step.")
@pass_app
def promote(app: App, service: str, full: bool) -> None:
    """Go on to the next step, or with --full make the new version the stable one."""
    _ask(app, service, "promote-full" if full else "promote")


@rollout.command()
@click.argument("service")
@pass_app
def abort(app: App, service: str) -> None:
    """Take the new version back."""
    _ask(app, service, "abort")


@rollout.command()
@click.argument("service")
@as_format
@pass_app
def history(app: App, service: str, form: str) -> None:
    """Every rollout of a service, newest last."""
    with app.deployment() as deployment:
        past = deployment.store.rollouts(service)
    if form == "json":
        print_json([view.as_json(r) for r in past])
        return
    now = time.time()
    print_table(
        ("WHEN", "FROM", "TO", "PHASE", "REQUESTS", "HURT", "REASON"),
        [
            [
                f"{ago(r.started_at, now)} ago",
                r.stable_label,
                r.canary_label,
                r.phase,
                f"{r.counts.total:,}",
                f"{r.counts.hurt:,}",
                r.reason,
            ]
            for r in past
        ],
    )
