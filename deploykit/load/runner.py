"""The child process: ``python -m deploykit.load.runner``.

The first line of stdin is the job as JSON. Stdin then stays open as the lifeline to the parent: once it ends, or the
parent is another process, this one ends too. Stdout carries JSON lines: ``{"second": ...}`` every second, then
``{"result": ...}`` or ``{"failed": "..."}``. SIGTERM and SIGINT stop the run; the result so far is still printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

PARENT_CHECK_S = 0.5
READ_SIZE = 65536


def main() -> int:
    stops = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # until the handlers below are there
    import gevent
    from gevent import monkey

    monkey.patch_all()
    from gevent.os import tp_read

    from deploykit.errors import DeployError
    from deploykit.load.engine import Run
    from deploykit.load.job import LoadJob

    parent = os.getppid()
    data = b""
    while b"\n" not in data:
        part = tp_read(0, READ_SIZE)
        if not part:
            return 2
        data += part
    run = Run(
        LoadJob.from_json(json.loads(data.partition(b"\n")[0])), lambda second: _say({"second": second.to_json()})
    )
    for number in stops:
        gevent.signal_handler(number, run.stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)

    def lifeline() -> None:
        while tp_read(0, READ_SIZE):
            pass
        os._exit(1)

    def same_parent() -> None:
        while os.getppid() == parent:
            gevent.sleep(PARENT_CHECK_S)
        os._exit(1)

    gevent.spawn(lifeline)
    gevent.spawn(same_parent)
    code = 0
    try:
        _say({"result": run.go().to_json()})
    except DeployError as error:
        _say({"failed": error.message})
        code = 1
    # the lifeline's thread still reads stdin; leave without waiting for it
    os._exit(code)


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except OSError:
        os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
