"""The tree of operational errors. A user's wrong value is a ``ValueError``; a broken invariant of ours an ``assert``.

FactoryError
├── ConfigError            a job file cannot be used (also a ValueError)
│   └── GuardError         what a student would learn, or how, is refused before the first step
├── SourceError            a source of problems cannot be read at all (a bad row is quarantined, never raised)
├── TeacherError           the teacher cannot be loaded, or died for good
│   ├── RequestError       the engine refused one request; others go on
│   │   └── NotRecordedError   a recording has no such attempt
│   ├── NodeError          a node lacks what an engine needs; starting it again would not help
│   └── EngineDeadError    one engine is gone; its leases go back to the queue
├── InterruptedRun         the user pressed Ctrl-C; nothing that was finished is lost
│   ├── TerminatedRun      SIGTERM: the job or its node is taken away
│   ├── TimeLimitRun       the job's time limit is near
│   └── BudgetRun          the run's budget is spent
├── PublishError           a version is not there yet: the Hub shows the one before, or this one, whole
│   ├── NoPermissionError      the token is missing, expired, or may not write there
│   ├── ConflictError          the repository or the tag holds what somebody else put there
│   ├── PartialError           the Hub could not be reached for long enough, or fails; the same command goes on
│   └── VerificationError      what the Hub gives back is not what was published
├── VerifierError          our own judging machinery is broken (a canary failed); never a verdict
└── StoreError             a run on disk
    ├── RunLockedError         another process works on this run
    ├── FingerprintError       the run belongs to another teacher, prompt or sampling
    ├── SchemaVersionError     written by a version of the schemas that this one cannot read
    ├── FencedError            another start took over; this one must stop
    ├── StorageError           an object store does not do what it is asked for
    └── CorruptRunError        what is on disk contradicts the manifest
"""


class FactoryError(Exception):
    """Base of every operational error of the factory: its text is meant for the user."""

    exit_code = 1  # of the command


class ConfigError(FactoryError, ValueError):
    """A job file cannot be used; the text names file, key, value and what is allowed."""


class GuardError(ConfigError):
    """A student's data or settings would teach it something else; the text names guard, row and what was seen."""


class SourceError(FactoryError):
    """A source of problems cannot be read at all."""


class TeacherError(FactoryError):
    """The teacher cannot be loaded, or died for good; the text holds the engine's last log lines."""


class RequestError(TeacherError):
    """The engine refused this one request; others go on."""


class NotRecordedError(RequestError):
    """A recording holds no such attempt; asking again will not help."""


class NodeError(TeacherError):
    """A node lacks what an engine on it needs, such as the model or room for it; the text names both."""


class EngineDeadError(TeacherError):
    """One engine is gone; what it had in flight goes back to the queue."""


class InterruptedRun(FactoryError):
    """The user pressed Ctrl-C: what was finished is safe, and the same command goes on."""

    exit_code = 130


class TerminatedRun(InterruptedRun):
    """SIGTERM came: a scheduler takes the job or its node away."""

    exit_code = 143


class TimeLimitRun(InterruptedRun):
    """The run stopped itself, so near to ``schedule.time_limit_s``."""

    exit_code = 3


class BudgetRun(InterruptedRun):
    """``schedule.budget`` is spent; what is pending stays so until there is more."""

    exit_code = 3


class PublishError(FactoryError):
    """A version is not there yet, or not proven; nothing is half visible."""


class NoPermissionError(PublishError):
    """The token is missing, expired, or may not write to the repository."""

    exit_code = 4


class ConflictError(PublishError):
    """The repository or the tag holds what somebody else put there; nothing of it was changed."""

    exit_code = 5


class PartialError(PublishError):
    """The Hub could not be reached, or failed, for longer than patience lasts; the same command goes on.

    What it refuses for good is a ``ConfigError``: no rerun would help.
    """

    exit_code = 6


class VerificationError(PublishError):
    """What the Hub gives back is not what was published; no tag was set on it."""

    exit_code = 7


class VerifierError(FactoryError):
    """Our own judging machinery is broken; nothing it said lately may be used."""


class StoreError(FactoryError):
    """A run on disk cannot be used as asked."""


class RunLockedError(StoreError):
    """Another living process works on this run."""


class FingerprintError(StoreError):
    """The run on disk was made with another teacher, prompt or sampling."""


class SchemaVersionError(StoreError):
    """The file was written by a version of the schemas that this one cannot read."""


class FencedError(StoreError):
    """Another start claimed a higher epoch, or sealed this one's segment: it must not write any more."""


class StorageError(StoreError):
    """An object store cannot be reached, refuses, or lacks what a run needs of it."""


class CorruptRunError(StoreError):
    """What is on disk contradicts the manifest."""
