from __future__ import annotations

import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.control.store import Size, Store, Version
from deploykit.core.rollout import Counts, Rollout
from deploykit.errors import DeployError
from deploykit.events import Event
from deploykit.spec.model import (
    Analysis,
    Build,
    Dependency,
    Extension,
    Healthcheck,
    HealthProbe,
    Mount,
    Port,
    Resources,
    RolloutPolicy,
    Service,
    Step,
    UpdateConfig,
)

st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(Path, st.text("ab/", min_size=1).map(Path))

services = st.builds(
    Service,
    build=st.none() | st.from_type(Build),
    ports=st.lists(st.from_type(Port), max_size=2).map(tuple),
    depends_on=st.dictionaries(st.text(), st.from_type(Dependency), max_size=2),
    healthcheck=st.none() | st.from_type(Healthcheck),
    resources=st.from_type(Resources),
    update_config=st.from_type(UpdateConfig),
    volumes=st.lists(st.from_type(Mount), max_size=1).map(tuple),
    extension=st.builds(
        Extension,
        health=st.none() | st.from_type(HealthProbe),
        rollout=st.builds(
            RolloutPolicy,
            steps=st.lists(st.from_type(Step), max_size=2).map(tuple),
            analysis=st.none() | st.from_type(Analysis),
        ),
    ),
)
rollouts = st.builds(Rollout, steps=st.lists(st.from_type(Step), max_size=3).map(tuple), counts=st.from_type(Counts))


@settings(max_examples=60, deadline=None)
@given(service=services)
def test_a_version_comes_back_as_it_was(service: Service) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "state.db")
        made = Version("web", "abc", "v1", "image", service)
        store.add_version(made, 1.0)
        assert store.version("web", "abc") == made
        store.close()


@settings(max_examples=60, deadline=None)
@given(rollout=rollouts)
def test_a_rollout_comes_back_as_it_was(rollout: Rollout) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "state.db")
        rollout = replace(rollout, service="web")
        store.save_rollout(rollout)
        assert store.rollout("web") == rollout
        assert store.rollouts("web") == [rollout]
        store.close()


def test_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.db"
    store = Store(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.set_size(Size("web", "abc", 3))
    store.ask("web", "pause", 1.0)
    store.ask("web", "abort", 2.0)
    event = Event("a.b", "text", 1.5, "web", "cause", {"n": 1})
    store.add_event(event)
    store.close()
    store = Store(path)
    assert store.sizes() == [Size("web", "abc", 3)]
    assert store.asked("web") == ["pause", "abort"]
    assert store.asked("web") == []
    assert store.events() == [event]
    store.forget_services()
    assert store.size("web") is None
    store.close()


def test_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(DeployError, match="the state file cannot be used: file is not a database"):
        Store(path)
    store = Store(path, repair=True)
    assert store.repaired
    assert store.sizes() == []
    store.close()
    assert path.with_name("state.db.broken").read_bytes().startswith(b"not a database")


def test_a_file_with_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    for number in range(200):
        store.set_size(Size(f"s{number}" * 20, "abc", 1))
    store.close()
    data = bytearray(path.read_bytes())
    data[-8192:] = b"\xff" * 8192
    path.write_bytes(data)
    with pytest.raises(DeployError, match="the state file cannot be used"):
        Store(path)
    Store(path, repair=True).close()
