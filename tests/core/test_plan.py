"""Plans are compared as text: what `--dry-run` prints is what is carried out."""

from __future__ import annotations

from textwrap import dedent

from hypothesis import given
from hypothesis import strategies as st

from deploykit.core.plan import Desired, Plan, Want, reconcile, renew, roll
from deploykit.core.replica import Replica, State


def replica(number: int, version: str = "aaa", state: State = "running") -> Replica:
    return Replica(
        f"id{number}", f"p-web-{number}", "p", "web", version, version, number, state, address=f"10.0.0.{number}:80"
    )


def text(plan: Plan) -> str:
    return "\n".join(line.rstrip() for line in plan.text().splitlines())


def expected(block: str) -> str:
    return dedent(block).strip()


def test_first_start() -> None:
    plan = reconcile(Desired("web", Want("aaa", 2)), [])
    assert text(plan) == expected(
        """
        route  web: stable none                      # its ports open while the first replicas start
        start  web-1 (aaa)                           # 2 wanted, 0 run
        start  web-2 (aaa)                           # 2 wanted, 0 run

        await  web-1 (aaa)                           # started above
        await  web-2 (aaa)                           # started above

        route  web: stable aaa                       # the replicas or weights above
        """
    )


def test_nothing_to_do_says_why() -> None:
    plan = reconcile(Desired("web", Want("aaa", 1)), [replica(1)])
    assert not plan.changes
    assert text(plan) == expected(
        """
        keep   web (aaa)                             # 1 of 1 run

        route  web: stable aaa                       # the replicas or weights above
        """
    )


def test_scale_down_routes_out_before_it_stops() -> None:
    plan = reconcile(Desired("web", Want("aaa", 1)), [replica(1), replica(2)])
    assert text(plan) == expected(
        """
        route  web: stable aaa, without web-2        # the replicas or weights above

        drain  web-2 (aaa)                           # routed out above

        stop   web-2 (aaa)                           # 1 wanted, 2 run

        remove web-2 (aaa)                           # stopped above
        """
    )


def test_a_dead_replica_is_removed_and_replaced() -> None:
    plan = reconcile(Desired("web", Want("aaa", 1)), [replica(1, state="exited")])
    assert [a.describe() for a in plan.actions] == [
        "remove web-1 (aaa)",
        "route  web: stable none",
        "start  web-1 (aaa)",
        "await  web-1 (aaa)",
        "route  web: stable aaa",
    ]


def test_a_canary_gets_its_weight_and_stable_keeps_its_size() -> None:
    plan = reconcile(Desired("web", Want("aaa", 2), Want("bbb", 1), 5.0), [replica(1), replica(2)])
    assert [a.describe() for a in plan.actions] == [
        "start  web-3 (bbb)",
        "await  web-3 (bbb)",
        "route  web: stable aaa 95%, canary bbb 5%",
    ]


def test_promotion_keeps_what_already_runs() -> None:
    seen = [replica(1), replica(2), replica(3, "bbb")]
    plan = reconcile(Desired("web", Want("bbb", 2)), seen)
    assert [a.describe() for a in plan.actions if a.kind == "start"] == ["start  web-4 (bbb)"]
    assert {a.number for a in plan.actions if a.kind == "stop"} == {1, 2}


def test_rolling_one_at_a_time_starts_first() -> None:
    plan = roll(Desired("web", Want("bbb", 2)), [replica(1), replica(2)], delay=1.0)
    assert text(plan) == expected(
        """
        start  web-3 (bbb)                           # moves from aaa

        await  web-3 (bbb)                           # started above

        route  web: stable aaa+bbb, without web-1    # new replicas in, old ones out

        drain  web-1 (aaa)                           # routed out above

        stop   web-1 (aaa)                           # replaced by bbb

        remove web-1 (aaa)                           # stopped above

        pause  1s

        start  web-4 (bbb)                           # moves from aaa

        await  web-4 (bbb)                           # started above

        route  web: stable aaa+bbb, without web-2    # new replicas in, old ones out

        drain  web-2 (aaa)                           # routed out above

        stop   web-2 (aaa)                           # replaced by bbb

        remove web-2 (aaa)                           # stopped above

        route  web: stable bbb                       # all replicas are of the new version
        """
    )


def test_stop_first_stops_before_it_starts() -> None:
    plan = roll(Desired("web", Want("bbb", 1)), [replica(1)], start_first=False)
    kinds = [a.kind for a in plan.actions]
    assert kinds.index("stop") < kinds.index("start")


def test_renew_replaces_each_by_its_own_version() -> None:
    plan = renew("web", [replica(1), replica(2, "bbb")])
    assert [a.describe() for a in plan.actions if a.kind in ("start", "stop")] == [
        "start  web-3 (aaa)",
        "stop   web-1 (aaa)",
        "start  web-4 (bbb)",
        "stop   web-2 (bbb)",
    ]


observed = st.lists(
    st.tuples(st.sampled_from(["aaa", "bbb", "ccc"]), st.sampled_from(["running", "exited"])), max_size=12
).map(lambda rows: [replica(i + 1, version, state) for i, (version, state) in enumerate(rows)])  # type: ignore[arg-type]


def carried_out(plan: Plan, seen: list[Replica]) -> dict[int, str]:
    """What runs after the plan, and on the way: no number twice, nothing stopped that still gets traffic."""
    running = {r.number: r.version for r in seen if r.running}
    present = {r.number for r in seen}
    routed_out: set[int] = set()
    for action in plan.actions:
        match action.kind:
            case "start":
                assert action.number not in present
                present.add(action.number)
                running[action.number] = action.version
            case "route":
                routed_out = {
                    n
                    for n, v in running.items()
                    if n in action.without or (v not in action.stable and v != action.canary)
                }
            case "stop":
                assert action.number in routed_out
                del running[action.number]
            case "remove":
                assert action.number not in running
                present.discard(action.number)
    assert present == set(running)
    return running


@given(observed, st.integers(0, 8))
def test_reconcile_reaches_what_is_desired(seen: list[Replica], count: int) -> None:
    end = carried_out(reconcile(Desired("web", Want("bbb", count)), seen), seen)
    assert list(end.values()) == ["bbb"] * count


@given(observed, st.integers(0, 8), st.integers(0, 4), st.booleans())
def test_rolling_reaches_what_is_desired(seen: list[Replica], count: int, parallelism: int, first: bool) -> None:
    plan = roll(Desired("web", Want("bbb", count)), seen, parallelism=parallelism, start_first=first)
    end = carried_out(plan, seen)
    assert sorted(end.values()) == ["bbb"] * count


@given(st.integers(1, 8), st.integers(1, 4))
def test_rolling_never_has_fewer_than_before_nor_more_than_the_surge(count: int, parallelism: int) -> None:
    seen = [replica(i + 1) for i in range(count)]
    plan = roll(Desired("web", Want("bbb", count)), seen, parallelism=parallelism)
    running = count
    for action in plan.actions:
        running += (action.kind == "start") - (action.kind == "stop")
        assert count <= running <= count + parallelism
