"""The proxy's access log, followed on a thread and closed into per-second windows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from deploykit.metrics.windows import Second, WindowAggregator
from deploykit.runtimes.base import ProxyHost

OnSecond = Callable[[Second], None]


class Traffic:
    """Calls `on_second` for every closed second, silent ones too. A context manager: the thread ends with it."""

    def __init__(self, host: ProxyHost, project: str, on_second: OnSecond) -> None:
        self._host = host
        self._project = project
        self._on_second = on_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="traffic", daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=3)

    def _follow(self) -> None:
        aggregator = WindowAggregator()
        while not self._stop.is_set():
            for line in self._host.follow(self._project, self._stop.is_set):
                for second in aggregator.feed([line] if line else [], time.time()):
                    self._on_second(second)
                if self._stop.is_set():
                    return
            self._stop.wait(0.2)
