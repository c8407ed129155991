"""Every error this package raises, as one tree arranged by what the caller would do about it.

    DatasetStoreError
    ├── InvalidRequest        change the call                                   (also ValueError)
    │   ├── InvalidPath           a file name or path that no store may hold
    │   ├── UnsupportedFileType   a device, socket or fifo, or a link that leaves the folder
    │   ├── NotFinal              finalize the version first
    │   ├── VersionIsFinal        a final version never changes; make a child
    │   └── PendingUploads        upload first
    ├── NotFound              look elsewhere                                    (also ValueError)
    │   ├── DatasetNotFound
    │   │   └── VersionDeleted    there was such a version, and it was deleted
    │   ├── PathNotFound          a local path that does not exist
    │   └── StoreNotFound         nothing that looks like a store at that URL
    ├── Conflict              someone or something else got there first         (also ValueError)
    │   ├── VersionExists
    │   ├── FileChanged           a source file changed while or after it was read
    │   ├── ExternalFileChanged   a linked file is not what it was when it was added
    │   ├── TargetNotEmpty        a folder that would be overwritten
    │   ├── ChunksLost            what a draft had sent was collected, and cannot be sent again
    │   └── CommitOutcomeUnknown  repeat the same commit; it cannot land twice
    ├── Corrupt               bytes are not what they must be; versions that do not hold them are unaffected
    │   ├── CorruptObject         an object of the store fails its checks
    │   ├── ObjectMissing         an object that a version needs is not there
    │   └── HistoryRewound        the log is not the one this machine has seen
    ├── FormatTooNew          install a newer version of this package
    ├── DriverMissing         install the extra that the message names
    └── StorageFailed         the store or the disk refused; nothing acknowledged is lost; retry
        ├── StoreUnreachable
        │   └── StoreRootMissing      its folder or bucket is not there
        ├── WorkerFailed          a worker of an executor that the caller gave
        ├── OutcomeUnknown        a create whose reply was lost (handled inside, never shown)
        ├── StoreReadOnly
        │   └── StoreLacksCreateIfAbsent  two writers cannot be kept apart there
        ├── StorageRefused        it does not carry out such a request, however often it is sent
        ├── DiskFull
        └── AccessDenied

`kind` is a stable machine-readable name, append-only. The message says what happened, to which thing, and
what to do next.
"""

from typing import ClassVar

__all__ = [
    "AccessDenied",
    "ChunksLost",
    "CommitOutcomeUnknown",
    "Conflict",
    "Corrupt",
    "CorruptObject",
    "DatasetNotFound",
    "DatasetStoreError",
    "DiskFull",
    "DriverMissing",
    "ExternalFileChanged",
    "FileChanged",
    "FormatTooNew",
    "HistoryRewound",
    "InvalidPath",
    "InvalidRequest",
    "NotFinal",
    "NotFound",
    "ObjectMissing",
    "OutcomeUnknown",
    "PathNotFound",
    "PendingUploads",
    "StorageFailed",
    "StoreLacksCreateIfAbsent",
    "StoreNotFound",
    "StoreReadOnly",
    "StoreRootMissing",
    "StoreUnreachable",
    "TargetNotEmpty",
    "UnsupportedFileType",
    "VersionDeleted",
    "VersionExists",
    "VersionIsFinal",
    "WorkerFailed",
]


class DatasetStoreError(Exception):
    """The root of the tree.

    Args:
        what: One sentence: what happened, to which thing.
        next_step: What is safe and what to do next; may be empty only where the sentence already says it.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(what, next_step)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what} {self.next_step}".rstrip()


class InvalidRequest(DatasetStoreError, ValueError):
    """The call itself cannot be carried out; nothing was touched."""

    kind = "invalid-request"
    exit_code = 2


class InvalidPath(InvalidRequest):
    """A file name or path that no store may hold."""

    kind = "invalid-path"


class UnsupportedFileType(InvalidRequest):
    """A device, socket or fifo, or a symbolic link that leaves its folder."""

    kind = "unsupported-file-type"


class NotFinal(InvalidRequest):
    """The operation needs a final version."""

    kind = "not-final"
    exit_code = 4


class VersionIsFinal(InvalidRequest):
    """A final version never changes."""

    kind = "version-is-final"
    exit_code = 4


class PendingUploads(InvalidRequest):
    """Finalize was called while files still wait for upload."""

    kind = "pending-uploads"
    exit_code = 4


class NotFound(DatasetStoreError, ValueError):
    """What was asked for does not exist."""

    kind = "not-found"
    exit_code = 3


class DatasetNotFound(NotFound):
    """No version matches."""

    kind = "dataset-not-found"


class VersionDeleted(DatasetNotFound):
    """There was such a version, and it was deleted; its id is never given again."""

    kind = "version-deleted"


class PathNotFound(NotFound):
    """A local path, or a path inside a version, does not exist."""

    kind = "path-not-found"


class StoreNotFound(NotFound):
    """There is no store at that URL."""

    kind = "store-not-found"


class Conflict(DatasetStoreError, ValueError):
    """Someone or something else got there first."""

    kind = "conflict"
    exit_code = 4


class VersionExists(Conflict):
    """The explicit version number is taken."""

    kind = "version-exists"


class FileChanged(Conflict):
    """A source file changed while, or after, it was read."""

    kind = "file-changed"


class ExternalFileChanged(Conflict):
    """A file that a version only links to is not, or not any more, what it was when it was added."""

    kind = "external-file-changed"


class TargetNotEmpty(Conflict):
    """A folder holds files that the call would overwrite."""

    kind = "target-not-empty"


class ChunksLost(Conflict):
    """Contents that a draft had sent or found in the store were collected, and their files are not there any more."""

    kind = "chunks-lost"


class CommitOutcomeUnknown(Conflict):
    """A commit was sent and its fate could not be learned.

    Repeating the commit with the same `commit_id` is safe: it cannot land twice.
    """

    kind = "commit-outcome-unknown"

    def __init__(self, what: str, next_step: str = "", commit_id: str = "") -> None:
        super().__init__(what, next_step)
        self.commit_id = commit_id


class Corrupt(DatasetStoreError):
    """Bytes are not what they must be. Versions that do not hold them are unaffected; verify tells which do."""

    kind = "corrupt"
    exit_code = 5


class CorruptObject(Corrupt):
    """An object of the store fails its checks."""

    kind = "corrupt-object"


class ObjectMissing(Corrupt):
    """An object that a version needs is not in the store."""

    kind = "object-missing"


class HistoryRewound(Corrupt):
    """The log is not a continuation of the one this machine has seen."""

    kind = "history-rewound"


class FormatTooNew(DatasetStoreError):
    """The store uses a format or feature that this version of the package does not know."""

    kind = "format-too-new"


class DriverMissing(DatasetStoreError):
    """The package that reaches a kind of storage is not installed; the message names the extra that brings it."""

    kind = "driver-missing"


class StorageFailed(DatasetStoreError):
    """The store or the disk refused. Nothing acknowledged is lost; the call can be repeated."""

    kind = "storage-failed"


class StorageRefused(StorageFailed):
    """The storage does not carry out such a request, however often it is sent."""

    kind = "storage-refused"


class WorkerFailed(StorageFailed):
    """A worker of an executor that the caller gave was lost, or failed in a way of its own; the cause says how."""

    kind = "worker-failed"


class StoreUnreachable(StorageFailed):
    """The root of the store cannot be reached."""

    kind = "store-unreachable"


class StoreRootMissing(StoreUnreachable):
    """The folder or bucket that a store lies in is not there."""

    kind = "store-root-missing"


class OutcomeUnknown(StorageFailed):
    """A create-if-absent was sent and its reply never came: the object may or may not be there.

    Raised by backends, decided by the log, never shown to users.
    """

    kind = "outcome-unknown"


class StoreReadOnly(StorageFailed):
    """The store cannot be written through this backend."""

    kind = "store-read-only"


class StoreLacksCreateIfAbsent(StoreReadOnly):
    """The storage cannot be trusted to keep two writers apart, so nothing is written to it. Reading is safe."""

    kind = "store-lacks-create-if-absent"


class DiskFull(StorageFailed):
    """No space or quota left on a disk."""

    kind = "disk-full"


class AccessDenied(StorageFailed):
    """Permissions forbid the operation."""

    kind = "access-denied"
