"""README and docs are held to the code: command lines parse, links resolve, the support table is the code's own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deploykit.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_CODE = re.compile(r"(?<!`)`(deploykit [^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def command_lines(text: str) -> Iterator[str]:
    """Every `deploykit ...` in a fence or in backticks, without comment and without what follows a pipe."""
    for language, body in _FENCE.findall(text):
        if language in ("", "sh", "bash", "console", "text"):
            for line in body.replace("\\\n", " ").splitlines():
                bare = line.strip().removeprefix("$ ")
                if bare.startswith("deploykit "):
                    yield bare
    yield from _CODE.findall(_FENCE.sub("", text))


def parse(line: str) -> None:
    """Parse as click would, down to the last subcommand, without running anything. Raises click.ClickException."""
    words = shlex.split(re.split(r" [|&>]", line)[0], comments=True)[1:]
    command: click.Command = cli
    parent: click.Context | None = None
    while True:
        context = command.make_context(command.name or "", list(words), parent=parent, resilient_parsing=False)
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        _, found, words = command.resolve_command(context, rest)
        assert found is not None
        command, parent = found, context


LINES = [(page.name, line) for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line}" for page, line in LINES])
def test_command_line_parses(page: str, line: str) -> None:
    try:
        parse(line)
    except click.ClickException as error:
        pytest.fail(f"{page}: {line!r}: {error.format_message()}")
    except click.exceptions.Exit:
        pass


@pytest.mark.parametrize("line", ["deploykit nonsense", "deploykit up --nonsense", "deploykit rollout begin web"])
def test_a_wrong_line_is_found(line: str) -> None:
    with pytest.raises(click.ClickException):
        parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    targets = [link.partition("#")[0] for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))]
    missing = [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_readme_leads_to_the_first_canary() -> None:
    lines = [line for page, line in LINES if page == "README.md"]
    for part in ("up -d", "scale web=5", "load http://127.0.0.1:8080", "COLOR=green", "ERROR_RATE=0.2", "down"):
        assert any(part in line for line in lines), part
    assert (ROOT / "compose" / "colors.yaml").exists()


def test_make_targets_that_docs_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {name for page in PAGES for name in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text("utf-8"), re.M)}
    assert named <= targets


def test_every_command_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        names = [name]
        if isinstance(command, click.Group):
            names = [f"{name} {sub}" for sub, each in command.commands.items() if not each.hidden]
        for each in names:
            assert f"`{each}" in text, each


def test_compose_support_is_generated_from_the_code() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "compose_support.py")], capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / "compose-support.md").read_text(encoding="utf-8") == made


def test_docs_name_every_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    listed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^\w-]", each)[0] for each in listed if not each.startswith("types-")}
    assert not {name for name in names if name not in text}
