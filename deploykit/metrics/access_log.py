"""The line nginx writes for each request, and how it is read back."""

from __future__ import annotations

from json import loads
from typing import NamedTuple

# One JSON object a line; short keys, since this is written for every request.
#   t: end of request, Unix seconds with ms     s: service      k: track nginx chose
#   c: final status   rt: seconds, whole request   m: method   f: "1" when a header forced the track
#   ua/us/ut: upstream addresses, statuses and times: one for each attempt, joined by ", " (nginx's own form)
LOG_FORMAT = (
    "log_format deploykit escape=json "
    '\'{"t":$msec,"s":"$dk_service","k":"$dk_track","c":$status,"rt":$request_time,'
    '"m":"$request_method","f":"$dk_forced",'
    '"ua":"$upstream_addr","us":"$upstream_status","ut":"$upstream_response_time"}\';'
)


class Attempt(NamedTuple):
    """One try at one upstream. ``seconds`` is None where nginx has none; ``moved``: after the first upstream block."""

    address: str
    error: bool
    seconds: float | None
    moved: bool


class Hit(NamedTuple):
    """One request. ``at`` is Unix time of its end, ``seconds`` its whole duration, ``status`` what the user got."""

    at: float
    service: str
    track: str
    status: int
    seconds: float
    method: str
    forced: bool
    attempts: tuple[Attempt, ...]


CLIENT_CLOSED = 499  # nginx: the client went away before there was an answer


def parse(line: bytes) -> Hit | None:
    """Read one line; None where it is not one of ours (cut off, another format)."""
    try:
        row = loads(line)
    except ValueError:
        try:
            row = loads(line.replace(b'"c":000', b'"c":0'))  # how nginx prints "no status": not JSON
        except ValueError:
            return None
    try:
        address, status, time, code = row["ua"], row["us"], row["ut"], int(row["c"])
        attempts: tuple[Attempt, ...]
        if not address or address == "-":
            attempts = ()
        elif "," in address or " : " in address:
            attempts = _several(address, status, time, code)
        else:
            attempts = (Attempt(address, _is_error(status, code), None if time in _NONE else float(time), False),)
        return Hit(float(row["t"]), row["s"], row["k"], code, float(row["rt"]), row["m"], row["f"] == "1", attempts)
    except (KeyError, TypeError, ValueError):
        return None


_NONE = ("-", "")


def _is_error(status: str, code: int) -> bool:
    """A 5xx answer or none; none is not held against the upstream where the client went away."""
    return code != CLIENT_CLOSED if status in _NONE else status >= "500" and len(status) == 3


def _several(addresses: str, statuses: str, times: str, code: int) -> tuple[Attempt, ...]:
    """Take nginx's parallel lists apart: ", " between tries in one upstream block, " : " between blocks."""
    found: list[Attempt] = []
    groups = (addresses.split(" : "), statuses.split(" : "), times.split(" : "))
    for block, (a, s, t) in enumerate(zip(*groups, strict=True)):
        for address, status, time in zip(a.split(", "), s.split(", "), t.split(", "), strict=True):
            seconds = None if time in _NONE else float(time)
            found.append(Attempt(address, _is_error(status, 0), seconds, block > 0))
    if found and code == CLIENT_CLOSED and statuses.endswith("-"):
        found[-1] = found[-1]._replace(error=False)
    return tuple(found)
