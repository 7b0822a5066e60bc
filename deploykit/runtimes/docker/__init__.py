"""Replicas as Docker containers, behind one nginx container for each project."""

from __future__ import annotations

from deploykit.runtimes.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime"]
