"""Replicas as plain processes under Supervisor, images as release folders, nginx from its wheel."""

from deploykit.runtimes.process.runtime import ProcessRuntime

__all__ = ["ProcessRuntime"]
