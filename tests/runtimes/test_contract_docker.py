from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import RuntimeUnavailable
from deploykit.runtimes.base import Runtime
from deploykit.runtimes.docker import DockerRuntime
from tests.runtimes.contract import RealRuntimeContract


@pytest.mark.docker
class TestDocker(RealRuntimeContract):
    base = os.environ.get("DEPLOYKIT_TEST_BASE", "deploykit/python:3")

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def engine(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """Skip where no engine answers, unless one is required; leave no image behind."""
        runtime = DockerRuntime(tmp_path_factory.mktemp("engine"))
        try:
            runtime.ping()
        except RuntimeUnavailable as error:
            if os.environ.get("DEPLOYKIT_REQUIRE_DOCKER") == "1":
                raise
            pytest.skip(str(error))
        yield
        for image in runtime.engine.api.images():
            for tag in image["RepoTags"] or ():
                if tag.startswith(f"t{os.getpid()}x"):
                    runtime.engine.api.remove_image(tag)
        runtime.close()

    def make(self, tmp_path: Path) -> Runtime:
        return DockerRuntime(tmp_path / ".deploykit")
