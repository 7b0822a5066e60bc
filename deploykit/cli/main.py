"""The entry point: global options, command families, and the one place that catches errors."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import click

from deploykit import __version__
from deploykit.cli.app import App
from deploykit.errors import DeployError, RolloutAborted, ThresholdMissed

# Command to the module that holds it: a command's own imports are paid only when it runs.
COMMANDS = {
    "up": "project",
    "down": "project",
    "ps": "project",
    "scale": "project",
    "build": "project",
    "config": "project",
    "logs": "project",
    "restart": "project",
    "rollout": "rollout",
    "load": "load",
    "demo": "demo",
    "bases": "tools",
    "doctor": "tools",
    "version": "tools",
}


class Family(click.Group):
    """Loads a command's module when the command is used. Help texts of the list are kept here for speed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found = getattr(importlib.import_module(f"deploykit.cli.{module}"), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DeployError, click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            raise crash(error, ctx.obj.folder() if isinstance(ctx.obj, App) else Path.cwd()) from error


def crash(error: Exception, folder: Path) -> DeployError:
    """A mistake of ours, as one line; its traceback goes to a file that only its owner can read."""
    text = "".join(traceback.format_exception(error))
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    place = folder.absolute() / ".deploykit"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        where = _private(place / name, text)
    except OSError:
        where = _private(Path(tempfile.gettempdir()) / f"deploykit-{name}", text)
    says = str(error).splitlines()
    return DeployError(
        f"internal error: {type(error).__name__}{': ' + says[0] if says else ''}",
        hint=f"This is a mistake in deploykit; its traceback is in {where}.",
    )


def _private(path: Path, text: str) -> Path:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path


EPILOG = """\b
Five minutes to the first canary:
  deploykit -f compose/colors.yaml up -d            start it behind nginx on port 8080
  deploykit -f compose/colors.yaml scale web=5      five replicas, no request lost
  deploykit load http://127.0.0.1:8080 --rate 100   traffic, in another terminal
  deploykit -f compose/colors.yaml rollout start web --env COLOR=green
  deploykit -f compose/colors.yaml down
Or watch all of it: deploykit demo"""


@click.group(cls=Family, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-f", "--file", "files", multiple=True, type=click.Path(path_type=Path), help="Compose file(s).")
@click.option("-p", "--project-name", help="Project name. [default: the file's `name:`, or its folder]")
@click.option("--project-directory", type=click.Path(path_type=Path), help="Where relative paths start.")
@click.option("--env-file", "env_files", multiple=True, type=click.Path(path_type=Path), help="Instead of .env.")
@click.option("--profile", "profiles", multiple=True, help="Enable a profile.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "docker", "process"]),
    default="auto",
    envvar="DEPLOYKIT_RUNTIME",
    help="What runs replicas. `auto`: Docker where an engine answers, else plain processes.",
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "tty", "plain", "json", "quiet"]),
    default="auto",
    help="How progress is shown (on stderr).",
)
@click.option("--dry-run", is_flag=True, help="Print the plan, start and stop nothing (images are built).")
@click.version_option(__version__, prog_name="deploykit")
@click.pass_context
def cli(
    ctx: click.Context,
    files: tuple[Path, ...],
    project_name: str | None,
    project_directory: Path | None,
    env_files: tuple[Path, ...],
    profiles: tuple[str, ...],
    runtime: str,
    progress: str,
    dry_run: bool,
) -> None:
    """Compose files to load-balanced replicas, scaling and judged canary rollouts."""
    ctx.obj = App(files, project_name, project_directory, env_files, profiles, runtime, progress, dry_run)


def fail(error: DeployError) -> int:
    """Say what went wrong, why, and what to do; return the exit code."""
    for line in error.details:
        click.echo(f"  | {line}", err=True)
    mark = click.style("error:", fg="red", bold=True)
    if isinstance(error, RolloutAborted):
        mark = click.style("aborted:", fg="red", bold=True)
    elif isinstance(error, ThresholdMissed):
        mark = click.style("threshold missed:", fg="red", bold=True)
    click.echo(f"{mark} {error.message}", err=True)
    if error.hint:
        click.echo(f"       {error.hint}", err=True)
    return error.exit_code


def main() -> None:
    """Run deploykit and exit with its documented code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to end: as Ctrl-C, what was begun is taken back
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except DeployError as error:
        sys.exit(fail(error))
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains when it flushes
        sys.exit(1)
    except Exception as error:
        sys.exit(fail(crash(error, Path.cwd())))
