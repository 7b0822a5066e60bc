from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.runtimes.base import Runtime
from deploykit.runtimes.process import ProcessRuntime
from tests.runtimes.contract import RealRuntimeContract


@pytest.mark.usefixtures("no_process_left")
class TestProcess(RealRuntimeContract):
    def make(self, tmp_path: Path) -> Runtime:
        return ProcessRuntime(tmp_path / ".deploykit")
