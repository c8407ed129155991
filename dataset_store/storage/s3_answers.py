"""What S3 answers, or what speaks its protocol: what each answer says, and the error that it is.

Promises: an object counts as absent only where S3 itself says so; the number 404 alone is also the answer of a proxy
that knows no bucket. An answer that will be the same the next time is an error that is not repeated. Never: sends
anything.
"""

from typing import Final

from msgspec import Struct

from dataset_store.errors import (
    AccessDenied,
    DatasetStoreError,
    DiskFull,
    StorageFailed,
    StorageRefused,
    StoreRootMissing,
)
from dataset_store.storage.filesystems import failure

__all__ = ["S3Answer", "answer_of", "s3_failure"]

_VERBS: Final = frozenset({"GetObject", "HeadObject", "PutObject", "DeleteObject", "ListObjectsV2"})

_BY_CHANCE: Final = frozenset(
    {
        "BadDigest",
        "IDPCommunicationError",
        "IncompleteBody",
        "RequestTimeout",
        "Throttling",
        "ThrottlingException",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
"""What is said, with the number 400, of a request that was damaged or held up on its way."""

_REPEAT: Final = "Check the storage and the network, then repeat; nothing acknowledged is lost."

_MEANINGS: Final[tuple[tuple[frozenset[str], type[StorageFailed], str], ...]] = (
    (
        frozenset({"507", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}),
        DiskFull,
        "Free some space or raise the quota, then repeat; nothing acknowledged is lost.",
    ),
    (
        frozenset({"InvalidObjectState"}),
        StorageRefused,
        "The object was moved to an archive: restore it there, then repeat.",
    ),
    (frozenset({"RequestTimeTooSkewed"}), AccessDenied, "Set this machine's clock, then repeat."),
    (
        frozenset({"401", "403", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}),
        AccessDenied,
        "Check the credentials and their rights, then repeat.",
    ),
    (frozenset({"404"}), StorageFailed, "What answered is no bucket: check the endpoint and what lies before it."),
    (
        frozenset({"413", "EntityTooLarge"}),
        StorageRefused,
        "Let the storage, and what lies before it, take requests of 64 MiB.",
    ),
    (
        frozenset({"301", "308", "PermanentRedirect"}),
        StorageRefused,
        "The bucket lies elsewhere: check its region and the endpoint.",
    ),
    (_BY_CHANCE, StorageFailed, _REPEAT),
)
"""Words of an answer, the error that they are, and what to do; the first row that knows one holds."""

_MAY_NOT_LIST: Final = "Check the credentials: who may not list a bucket (s3:ListBucket) is told so of what is absent."
_REFUSED: Final = "Check what the bucket asks of requests: locks, encryption, region, endpoint."


class S3Answer(Struct, frozen=True):
    """An answer that tells of no success.

    Attributes:
        code: S3's word for it; HTTP's number where the answer has no body, or one that is not of S3; or empty.
        status: HTTP's number.
        verb: The operation that was answered, as the protocol names it.
        message: What a user is told besides; may be empty.
    """

    code: str
    status: int
    verb: str
    message: str

    @property
    def words(self) -> frozenset[str]:
        """Both, or the one that there is."""
        return frozenset({self.code, str(self.status)} - {""})

    @property
    def has_a_word_of_s3(self) -> bool:
        """Whether it has more to say than HTTP's number."""
        return bool(self.code) and not self.code.isdigit()

    def __str__(self) -> str:
        number_and_word = f"{self.status} {self.code}" if self.has_a_word_of_s3 else str(self.status)
        lines = self.message.rstrip(". ").splitlines()
        return ": ".join([number_and_word, *lines[:1]])

    @property
    def tells_of_absence(self) -> bool:
        """Whether the object is certainly not there; to a HEAD there is only the number."""
        return self.code == "NoSuchKey" or (self.verb == "HeadObject" and self.status == 404)

    @property
    def tells_of_no_bucket(self) -> bool:
        """Whether the bucket is certainly not there."""
        return self.code == "NoSuchBucket"

    @property
    def has_lost_the_race(self) -> bool:
        """Whether a create found that the key is taken."""
        return self.status == 412

    @property
    def has_no_such_range(self) -> bool:
        """Whether the object ends before what was asked for."""
        return self.status == 416


def answer_of(error: BaseException) -> S3Answer | None:
    """What was answered, by what the client raised; None where it tells of no answer."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    said = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
    verb = getattr(error, "operation_name", "")
    return S3Answer(str(said.get("Code") or ""), int(status), str(verb), str(said.get("Message") or "").strip())


def s3_failure(error: Exception, doing: str, where: str) -> DatasetStoreError:
    """The typed error for what the client raised.

    Args:
        error: What was raised; one of this package's own comes back as it is.
        doing: What was being done, to follow "Cannot", up to the bucket.
        where: The bucket, as described to a user.
    """
    answer = answer_of(error)
    if answer is None:
        return failure(error, f"{doing} {where}")
    if answer.tells_of_no_bucket:
        return StoreRootMissing(f"Cannot {doing} {where}: it is not there.", "Make the bucket, or check the URL.")
    if answer.verb in _VERBS:
        return _of_bucket(f"Cannot {doing} {where}: the server answered {answer}.", answer)
    return _of_credentials(f"Cannot {doing} {where}: {answer.verb} was answered with {answer}.", answer)


def _of_credentials(what: str, answer: S3Answer) -> DatasetStoreError:
    """What gives out credentials (single sign-on, roles) answered in the bucket's place."""
    if answer.status >= 500 or answer.status == 429 or answer.code in _BY_CHANCE:
        return StorageFailed(what, _REPEAT)
    return AccessDenied(what, "Log in again, or check the role and the profile; then repeat.")


def _of_bucket(what: str, answer: S3Answer) -> DatasetStoreError:
    for words, kind, next_step in _MEANINGS:
        if not words.isdisjoint(answer.words):
            may_be_absent = answer.verb in {"GetObject", "HeadObject"} and answer.code in {"AccessDenied", "403"}
            return kind(what, _MAY_NOT_LIST if may_be_absent else next_step)
    if answer.status in {400, 405} and answer.has_a_word_of_s3:
        return StorageRefused(what, _REFUSED)
    return StorageFailed(what, _REPEAT)
