"""Writes the page on Compose support from the code: `python docs/compose_support.py > docs/compose-support.md`."""

from __future__ import annotations

import json
from importlib.resources import files

from deploykit.spec import support

HEAD = """# Which Compose keys are acted on

Made by `python docs/compose_support.py` from the code that warns; do not edit by hand.

Any Compose file loads. Each key is checked with Compose's own schema; interpolation, `.env`, several files,
`extends`, `include`, `profiles`, anchors, `!reset` and `!override` work as in `docker compose`. A key that is known but
changes nothing here is named in a warning. An unknown key is an error that names file, line and column.
`deploykit config` shows what a file comes to, with its warnings.
"""
NOTES = {
    "build": "`{build}`; the process runtime reads the Dockerfile itself",
    "deploy": "`{deploy}`",
    "ports": "a TCP port is published by nginx, in front of all replicas; UDP by the engine",
    "volumes": "`bind`, `volume` and `tmpfs`; Docker only, but for tmpfs",
    "networks": "Docker only; an HTTP service's name reaches nginx, so internal calls are balanced too",
    "healthcheck": "yes, run by deploykit itself; `x-deploykit.health` comes first",
    "image": "needs Docker; the process runtime builds from `build:`",
    "cpus": "Docker only",
    "mem_limit": "Docker only",
    "pids_limit": "Docker only",
    "user": "Docker only",
    "read_only": "Docker only",
    "cap_add": "Docker only",
    "cap_drop": "Docker only",
    "security_opt": "Docker only; `no-new-privileges` is always on there",
    "labels": "Docker only",
    "expose": "the port that a replica listens on where none is published",
    "scale": "the same as `deploy.replicas`",
    "depends_on": "order, and `condition`",
    "restart": "`no`, `always`, `on-failure`, `unless-stopped`",
    "stop_grace_period": "how long a replica may take to stop after `x-deploykit.drain`",
}
EXTENSION = """
## Under `x-deploykit` in a service

| key | |
| --- | --- |
| `health` | acted on: `path`, `interval`, `timeout`, `deadline` |
| `drain` | acted on: how long requests may take to finish before a replica is stopped |
| `rollout.strategy` | `canary` and `rolling` are acted on; `blue-green` and `recreate` warn, and rolling is used |
| `rollout.steps` | acted on: `set_weight` in percent, `pause` (`{}` waits for `rollout promote`) |
| `rollout.analysis` | acted on: `mode`, `false_alarm`, `error_budget`, `metrics`, `min_requests`, `initial_delay`, \
`on_inconclusive` |
| `rollout.progress_deadline` | acted on |
| LATER | a warning: not acted on yet |
"""


def main() -> None:
    schema = json.loads(files("deploykit.spec").joinpath("schema.json").read_text(encoding="utf-8"))
    service = schema["definitions"]["service"]["properties"]
    parts = {key: "`, `".join(sorted(names)) for key, names in support._PARTS.items()}
    print(HEAD)
    print("## Acted on\n\n| key of a service | note |\n| --- | --- |")
    for key in sorted(support.ACTED_ON):
        print(f"| `{key}` | {NOTES.get(key, '').format(**parts)} |")
    print("\n## A warning, then left alone\n")
    quiet = sorted(set(service) - support.ACTED_ON)
    for start in range(0, len(quiet), 6):
        print(", ".join(f"`{key}`" for key in quiet[start : start + 6]) + ("," if start + 6 < len(quiet) else "."))
    print("\nAlso every other key of `build` and `deploy`, and `deploy.resources.reservations`.")
    later = ", ".join(f"`{key}`" for key in extension_later())
    print(EXTENSION.replace("LATER", later).rstrip())


def extension_later() -> list[str]:
    from deploykit.spec import extension

    return [*extension._LATER, *(f"rollout.{key}" for key in extension._ROLLOUT_LATER)]


if __name__ == "__main__":
    main()
