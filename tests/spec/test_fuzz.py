"""A file gone wrong anywhere is read or refused with a place; it never breaks the loader."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import SpecError
from deploykit.spec.load import load

WHOLE: dict[str, Any] = {
    "name": "p",
    "services": {
        "web": {
            "image": "x",
            "build": {"context": ".", "args": ["A=1"], "platforms": ["a"], "shm_size": "1m"},
            "command": "a b",
            "environment": {"A": 1},
            "env_file": [{"path": "no", "required": False}],
            "ports": ["80:80", {"target": 1, "published": "2"}],
            "expose": ["1"],
            "volumes": ["v:/v", {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 5}}],
            "depends_on": {"db": {"condition": "service_started"}},
            "networks": {"n": {"aliases": ["q"]}},
            "healthcheck": {"test": ["CMD", "x"], "interval": "1s", "retries": 2},
            "deploy": {
                "replicas": 2,
                "resources": {"limits": {"cpus": "1"}},
                "update_config": {"delay": "1s"},
                "restart_policy": {"condition": "any", "max_attempts": 2},
            },
            "labels": {"a": "b"},
            "secrets": ["s"],
            "develop": {"watch": [{"path": ".", "action": "sync", "target": "/x"}]},
            "extra_hosts": {"a": "1.2.3.4"},
            "devices": ["a:b"],
            "logging": {"options": {"a": "b"}},
            "x-deploykit": {
                "health": {"path": "/", "interval": "1s"},
                "drain": "1s",
                "rollout": {
                    "strategy": "canary",
                    "steps": [{"set_weight": 1}, {"pause": {}}],
                    "analysis": {"error_budget": "1%", "metrics": [{"name": "latency", "quantiles": [0.5]}]},
                },
            },
        },
        "db": {"image": "y", "extends": {"service": "base"}, "profiles": []},
        "base": {"image": "z", "links": []},
    },
    "networks": {"n": {"driver": "x", "external": False}},
    "volumes": {"v": {"driver_opts": {"o": "bind", "device": "."}}},
    "secrets": {"s": {"file": "s"}},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found.extend(places(item, (*path, key)))
    return found


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(allow_nan=False), st.text(max_size=6))
ANYTHING = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text(max_size=4), SCALARS, max_size=2))


def test_the_whole_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(json.dumps(WHOLE))
    assert sorted(load([path], directory=None, project_name=None, environ={}).services) == ["base", "db", "web"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(places(WHOLE)), ANYTHING)
def test_one_value_replaced(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(WHOLE)
    inner: Any = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    path = tmp_path / "compose.yaml"
    path.write_text(json.dumps(changed))
    message = str(path)
    try:
        load([path], directory=None, project_name=None, environ={})
    except SpecError as error:
        message = error.message
    if not message.startswith(str(tmp_path)):
        pytest.fail(message)
