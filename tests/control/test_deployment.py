from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from deploykit.control.deployment import Deployment
from deploykit.control.rollouts import RolloutRunner
from deploykit.control.versions import with_environment
from deploykit.core.rollout import Rollout
from deploykit.core.window import Window
from deploykit.errors import DeployError, NotFound, PortInUse, ReplicaFailed, RolloutAborted
from deploykit.metrics.windows import Second
from deploykit.runtimes.memory import MemoryRuntime

WEB = """
services:
  web:
    image: shop:1
    ports: ["8080:8000"]
    deploy: {{replicas: 3}}
    environment: {{COLOR: {color}}}
    x-deploykit:
      health: {{path: /, deadline: 300ms}}
      rollout: {{strategy: {strategy}, steps: [{{set_weight: 50}}]}}
"""


def web(color: str = "blue", strategy: str = "rolling") -> str:
    return WEB.format(color=color, strategy=strategy)


def running(deployment: Deployment, service: str = "web") -> list[tuple[int, str]]:
    return [(r.number, r.label) for r in deployment.observe() if r.service == service and r.running]


def kinds(deployment: Any) -> list[str]:
    return [event.kind for event in deployment.said]


def test_up_scale_down(deploy: Any, runtime: MemoryRuntime) -> None:
    shop = deploy(web())
    assert shop.up() == []
    assert running(shop) == [(1, "1"), (2, "1"), (3, "1")]
    config = runtime.proxy.config("shop")
    assert config is not None
    assert all(r.address in config for r in shop.observe())
    shop.scale("web", 5)
    assert len(running(shop)) == 5
    shop.scale("web", 1)
    assert len(running(shop)) == 1
    assert shop.store.size("web").replicas == 1
    shop.down()
    assert runtime.projects() == ()
    assert shop.store.sizes() == []


def test_up_twice_changes_nothing(deploy: Any, runtime: MemoryRuntime) -> None:
    deploy(web()).up()
    before = runtime.observe("shop")
    again = deploy(web())
    again.up()
    assert runtime.observe("shop") == before
    assert "replica.started" not in kinds(again)


def test_a_changed_service_rolls(deploy: Any) -> None:
    deploy(web()).up()
    shop = deploy(web("green"))
    shop.up()
    assert {label for _, label in running(shop)} == {"v2"}
    assert len(running(shop)) == 3


def test_a_first_start_that_fails_leaves_nothing(deploy: Any, runtime: MemoryRuntime) -> None:
    shop = deploy(web())
    runtime.fail_start.add(shop.make_version(shop.project.services["web"]).version)
    with pytest.raises(ReplicaFailed):
        shop.up()
    assert runtime.projects() == ()
    assert shop.store.sizes() == []
    assert "change.undone" in kinds(shop)


def test_a_first_port_in_use_leaves_nothing(deploy: Any, runtime: MemoryRuntime) -> None:
    runtime.proxy.taken.add(8080)
    with pytest.raises(PortInUse):
        deploy(web()).up()
    assert runtime.projects() == ()


def test_a_new_service_that_fails_leaves_the_others(deploy: Any, runtime: MemoryRuntime) -> None:
    deploy(web()).up()
    before = runtime.observe("shop")
    runtime.proxy.taken.add(9090)
    shop = deploy(web() + '  more: {image: "more:1", ports: ["9090:80"]}\n')
    with pytest.raises(PortInUse):
        shop.up()
    assert runtime.observe("shop") == before
    assert [size.service for size in shop.store.sizes()] == ["web"]
    assert [listen.port for listen in runtime.proxy.listens("shop")] == [8080]


@pytest.mark.parametrize("how", ["fail_start", "unhealthy"])
def test_a_change_that_fails_is_undone(deploy: Any, runtime: MemoryRuntime, how: str) -> None:
    deploy(web()).up()
    before, config = runtime.observe("shop"), runtime.proxy.config("shop")
    shop = deploy(web("green"))
    getattr(runtime, how).add(shop.make_version(shop.project.services["web"]).version)
    with pytest.raises(ReplicaFailed):
        shop.up()
    assert runtime.observe("shop") == before
    assert runtime.proxy.config("shop") == config
    assert shop.store.size("web").stable == before[0].version
    failed = deploy(web())
    runtime.fail_start.add(before[0].version)
    with pytest.raises(ReplicaFailed):
        failed.scale("web", 6)
    assert runtime.observe("shop") == before
    assert failed.store.size("web").replicas == 3


def test_an_interruption_stops_waiting_and_is_undone(deploy: Any, runtime: MemoryRuntime) -> None:
    deploy(web()).up()
    before = runtime.observe("shop")
    shop = deploy(web("green").replace("300ms", "60s"))
    made = shop.make_version(shop.project.services["web"])
    runtime.unhealthy.add(made.version)
    shop.executor.interrupted.set()
    with pytest.raises(DeployError):
        shop.rolling(made)
    assert runtime.observe("shop") == before
    assert next(e.cause for e in shop.said if e.kind == "change.undone") == "interrupted"


def test_one_service_that_fails_does_not_call_off_another(deploy: Any, runtime: MemoryRuntime) -> None:
    text = web().replace("300ms", "5s") + '  bad: {image: "bad:1", expose: [1], deploy: {replicas: 2}}\n'
    shop = deploy(text)
    shop.up(only=["web"])
    bad = shop.make_version(shop.project.services["bad"]).version
    runtime.fail_start.add(bad)
    with pytest.raises(ReplicaFailed):
        shop.up(scale={"web": 4})
    assert len(running(shop)) == 4
    assert running(shop, "bad") == []


def test_names_that_are_not_there(deploy: Any) -> None:
    shop = deploy(web())
    with pytest.raises(NotFound, match="no service 'wep' in shop") as caught:
        shop.up(only=["wep"])
    assert caught.value.hint == "Did you mean 'web'?"
    with pytest.raises(NotFound, match="'web' is not up"):
        shop.scale("web", 2)
    with pytest.raises(NotFound, match="no service 'x'"):
        shop.scale("x", 2)


# Rollouts


def begun(shop: Deployment, color: str = "green") -> Rollout:
    return shop.begin_rollout(shop.make_version(with_environment(shop.project.services["web"], {"COLOR": color})))


class Feeder:
    """Gives the runner a second of traffic at each look; ``bad`` of 100 canary requests fail."""

    def __init__(self, bad: int) -> None:
        self.bad = bad
        self.runner: RolloutRunner | None = None
        self.weights: set[float] = set()
        self.second = 4_000_000_000

    def __call__(self, rollout: Rollout) -> None:
        assert self.runner is not None
        self.weights.add(rollout.weight)
        self.second += 1
        stable = Window(self.second, "web", "stable", 100, 0, 100, 0, 0, {})
        canary = Window(self.second, "web", "canary", 100, self.bad, 100, self.bad, 0, {})
        self.runner.feed(Second(self.second, {("web", "stable"): stable, ("web", "canary"): canary}))


def run(shop: Deployment, rollout: Rollout, bad: int) -> tuple[Rollout, Feeder]:
    feeder = Feeder(bad)
    feeder.runner = RolloutRunner(shop, rollout, on_look=feeder)
    return feeder.runner.run(), feeder


def test_a_bad_canary_is_taken_back(deploy: Any) -> None:
    text = web(strategy="canary").replace("[{set_weight: 50}]", "[{set_weight: 50}], analysis: {}")
    shop = deploy(text)
    shop.up()
    ended, feeder = run(shop, begun(shop), 60)
    assert ended.phase == "aborted"
    assert 50 in feeder.weights
    assert ended.counts.hurt > 0
    assert running(shop) == [(1, "1"), (2, "1"), (3, "1")]
    assert shop.active_rollout("web") is None


def test_a_verb_from_elsewhere_is_taken_up(deploy: Any, runtime: MemoryRuntime) -> None:
    shop = deploy(web(strategy="canary").replace("[{set_weight: 50}]", "[{set_weight: 50}, {pause: {}}]"))
    shop.up()
    rollout = begun(shop)
    with pytest.raises(DeployError, match="a rollout to v2 is under way"):
        shop.up()
    with pytest.raises(DeployError, match="is under way"):
        shop.scale("web", 2)
    shop.store.ask("web", "promote-full", 0.0)
    ended, _ = run(shop, rollout, 0)
    assert ended.phase == "promoted"
    assert {label for _, label in running(shop)} == {"v2"}
    assert len(running(shop)) == 3
    assert shop.store.size("web").stable == ended.canary


def test_a_canary_that_cannot_start(deploy: Any, runtime: MemoryRuntime) -> None:
    shop = deploy(web(strategy="canary"))
    shop.up()
    rollout = begun(shop)
    runtime.fail_start.add(rollout.canary)
    with pytest.raises(RolloutAborted, match=r"web: v2 was taken back to 1: .* told to fail") as caught:
        run(shop, rollout, 0)
    assert caught.value.details == ("told to fail",)
    assert running(shop) == [(1, "1"), (2, "1"), (3, "1")]
    assert shop.store.rollout("web").phase == "aborted"


def test_nothing_to_roll_to(deploy: Any) -> None:
    shop = deploy(web())
    shop.up()
    made = shop.make_version(shop.project.services["web"])
    for change in (shop.begin_rollout, shop.rolling):
        with pytest.raises(DeployError, match="already runs this version"):
            change(made)


def test_down_ends_a_rollout(deploy: Any) -> None:
    shop = deploy(web(strategy="canary"))
    shop.up()
    begun(shop)
    shop.down()
    assert shop.store.rollout("web").phase == "aborted"


# The lock


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    from deploykit.control.lock import holder, writing
    from deploykit.errors import Busy

    held, done = threading.Event(), threading.Event()

    def first() -> None:
        with writing(tmp_path, "up"):
            held.set()
            done.wait(10)

    assert holder(tmp_path) == ""
    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(10)
    assert holder(tmp_path).startswith(f"`deploykit up` (process {os.getpid()}, for ")
    with pytest.raises(Busy, match=r"`deploykit up` .* is changing this project"), writing(tmp_path, "x", wait=0.05):
        pass
    threading.Timer(0.1, done.set).start()
    with writing(tmp_path, "scale", wait=10):  # a second one waits for its turn
        pass
    thread.join()
    assert holder(tmp_path) == ""
    assert not (tmp_path / "holder.json").exists()
