"""Every failure a user can meet.

DeployError (1)                what went wrong at run time
|-- UsageError (2)             wrong usage
|   `-- SpecError (2)          a bad Compose file, with file:line:column
|-- RuntimeUnavailable (1)     no engine or supervisor answers
|-- BuildFailed (1)            an image could not be made
|-- ReplicaFailed (1)          a replica died or never became ready; carries its last log lines
|-- PortInUse (1)              a published port belongs to somebody else
|-- ProxyFailed (1)            nginx refused a configuration or does not run
|-- Busy (1)                   another deploykit command holds the project
|-- NotFound (1)               a service, replica, image or rollout that is not there
|-- LoadFailed (1)             the load target refused or the generator broke
|-- RolloutAborted (3)         the judge or a person took the new version back
`-- ThresholdMissed (4)        a load threshold was missed

The number is the exit code. Foreign exceptions are translated where they enter; only `cli` catches these.
"""

from __future__ import annotations


class DeployError(Exception):
    """A failure with one clear sentence and, where known, what to do next.

    Parameters: ``message`` says what and where; ``hint`` what to do; ``details`` are lines shown below
    (a replica's last log lines, a build's output).
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class UsageError(DeployError):
    exit_code = 2


class SpecError(UsageError):
    """A Compose file that cannot be used. ``message`` starts with ``file:line:column: ``."""


class RuntimeUnavailable(DeployError):
    pass


class BuildFailed(DeployError):
    pass


class ReplicaFailed(DeployError):
    pass


class PortInUse(DeployError):
    pass


class ProxyFailed(DeployError):
    pass


class Busy(DeployError):
    pass


class NotFound(DeployError):
    pass


class LoadFailed(DeployError):
    pass


class RolloutAborted(DeployError):
    exit_code = 3


class ThresholdMissed(DeployError):
    exit_code = 4
