from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.errors import BuildFailed, NotFound
from deploykit.runtimes.process.context import Context, ignored
from deploykit.runtimes.process.dockerfile import expand, parse
from deploykit.runtimes.process.recipe import Copy, Folder, Install, Mode, Recipe, compose


def recipe(text: str, target: str | None = None, **arguments: str) -> Recipe:
    return compose(parse(text), arguments, target)


PYTHON = "FROM deploykit/python\n"


def test_line_numbers_survive_comments_and_continuations() -> None:
    file = parse(
        "# syntax=docker/dockerfile:1\nFROM python:3.11 AS Base\n\n# hi\n"
        "RUN pip install \\\n  # inside\n  flask\nCMD x\n"
    )
    (stage,) = file.stages
    assert (stage.line, stage.base, stage.name) == (2, "python:3.11", "base")
    assert [(i.line, i.keyword) for i in stage.instructions] == [(5, "RUN"), (8, "CMD")]
    assert stage.instructions[0].text.split() == ["pip", "install", "flask"]


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("$A-${A}", "1-1"),
        ("${B:-x}${A:-x}", "x1"),
        ("${A:+y}${B:+y}", "y"),
        ("${E-x}${E:-x}", "x"),
        (r"\$A", "$A"),
        ("$B", ""),
        ("${B:-${A}}", "1"),
    ],
)
def test_expand(text: str, out: str) -> None:
    assert expand(text, {"A": "1", "E": ""}) == out


def test_a_whole_dockerfile() -> None:
    made = recipe(
        "ARG V=3.11\nFROM python:${V}-slim\nARG WHO=me\nENV NAME=$WHO OTHER='a b'\nWORKDIR /app\nWORKDIR sub\n"
        "COPY requirements.txt .\n"
        "RUN --mount=type=cache,target=/root/.cache pip install -r requirements.txt && mkdir -p /data\n"
        "RUN useradd -m app && chmod +x run.sh\nCOPY --chown=app a.py b.py ./\nUSER app\nSTOPSIGNAL SIGINT\n"
        'ENTRYPOINT ["python"]\nCMD ["a.py"]\n',
        WHO="you",
    )
    assert (made.language, made.language_version) == ("python", "3.11")
    assert made.environment == {
        **{"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        **{"NAME": "you", "OTHER": "a b"},
    }
    assert made.steps == (
        Folder(5, "/app"),
        Folder(6, "/app/sub"),
        Copy(7, ("requirements.txt",), "/app/sub/"),
        Install(8, "pip", ("-r", "requirements.txt"), "/app/sub"),
        Folder(8, "/data"),
        Mode(9, "+x", ("/app/sub/run.sh",)),
        Copy(10, ("a.py", "b.py"), "/app/sub/"),
    )
    assert (made.entrypoint, made.command, made.stop_signal) == (("python",), ("a.py",), "SIGINT")
    assert [s.split(":")[1] for s in made.skipped] == ["9", "11"]


def test_shell_form_keeps_its_variables() -> None:
    assert recipe(PYTHON + "CMD python x.py --port ${PORT:-80}").command == (
        "/bin/sh",
        "-c",
        "python x.py --port ${PORT:-80}",
    )


def test_target_and_chained_stages() -> None:
    text = "FROM node:22 AS base\nENV A=1\nWORKDIR /x\nFROM base AS dev\nCMD dev\nFROM base\nCMD prod\n"
    assert recipe(text).command[-1] == "prod"
    dev = recipe(text, "dev")
    assert (dev.command[-1], dev.environment, dev.workdir) == ("dev", {"A": "1"}, "/x")
    with pytest.raises(NotFound, match="nope"):
        recipe(text, "nope")


@pytest.mark.parametrize(
    "base", ["python", "docker.io/library/python:3.12", "deploykit/python:1", "r.example/deploykit/python"]
)
def test_bases(base: str) -> None:
    assert recipe(f"FROM {base}\n").language == "python"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM alpine\n", "Dockerfile:1: FROM alpine"),
        ("FROM evil/python\n", "Dockerfile:1: FROM evil/python"),
        ("RUN x\n", "Dockerfile:1: RUN stands before"),
        ("", "no FROM"),
        ("FROM a b\n", "Dockerfile:1: FROM takes"),
        (PYTHON + "FOO x\n", "Dockerfile:2: unknown instruction 'FOO'"),
        (PYTHON + "RUN apt-get install -y curl\n", "Dockerfile:2: RUN apt-get"),
        (PYTHON + "RUN pip install x; rm -rf /\n", "Dockerfile:2: RUN pip install x; rm"),
        (PYTHON + "RUN pip install $(cat x)\n", "Dockerfile:2: RUN pip"),
        (PYTHON + "RUN <<EOF\nls\nEOF\n", "Dockerfile:2: heredocs"),
        (PYTHON + "\nCOPY --from=build /a /b\n", "Dockerfile:3: COPY --from=build"),
        (PYTHON + "ADD https://example.com/x /x\n", "Dockerfile:2: ADD https"),
        (PYTHON + "CMD ['a']\n", "Dockerfile:2: CMD is no valid JSON"),
        (PYTHON + 'SHELL ["bash"]\n', "Dockerfile:2: SHELL"),
        (PYTHON + "COPY a b c\n", "Dockerfile:2: COPY of several"),
        (PYTHON + "RUN npm install express\n", "Dockerfile:2: npm install express"),
        (PYTHON + "ENV A\n", "Dockerfile:2: ENV needs"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        recipe(text)
    assert said in caught.value.message


def test_dockerignore() -> None:
    test = ignored("# no\n*.pyc\nnode_modules\n**/cache\ndocs/*\n!docs/keep.md\n/top\n")
    out = ["a.pyc", "node_modules/x/y", "cache", "a/b/cache/z", "docs/x.md", "top"]
    kept = ["a.py", "sub/a.pyc", "docs/keep.md", "sub/node_modules", "sub/top"]
    assert [p for p in [*out, *kept] if test(p)] == out


def test_what_copy_takes(tmp_path: Path) -> None:
    for name in ("a.py", "b.py", "sub/c.txt", "sub/deep/d.txt", ".hidden", "secret"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("secret\n.dockerignore\n")
    context = Context(tmp_path, tmp_path / "Dockerfile")

    def targets(*sources: str, to: str) -> list[str]:
        return [e.target for e in context.select(sources, to, None, "Dockerfile:1")]

    assert targets(".", to="/app/") == [
        "/app/.hidden",
        "/app/a.py",
        "/app/b.py",
        "/app/sub/c.txt",
        "/app/sub/deep/d.txt",
    ]
    assert targets("a.py", to="/app/x.py") == ["/app/x.py"]
    assert targets("*.py", to="/app/") == ["/app/a.py", "/app/b.py"]
    assert targets("sub", to="/s") == ["/s/c.txt", "/s/deep/d.txt"]
    for bad in ("../x", "secret", "none*"):
        with pytest.raises(BuildFailed, match="Dockerfile:1: COPY"):
            targets(bad, to="/app/")
    os.symlink("/etc", tmp_path / "link")
    assert "/app/link" in [e.target for e in Context(tmp_path, tmp_path / "D").select((".",), "/app/", None, "x")]
