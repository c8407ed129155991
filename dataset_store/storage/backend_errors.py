"""Errors that backends of several kinds raise: each is worded once.

Promises: an error of `create` says "not made" only of what a storage refused; all else leaves the outcome open. What
may be gone the next time, and is worth another request, is said here once.
"""

from collections.abc import Collection
from typing import Final

from dataset_store.errors import (
    DatasetStoreError,
    ObjectMissing,
    OutcomeUnknown,
    StorageFailed,
    StoreLacksCreateIfAbsent,
    StoreUnreachable,
)

__all__ = ["arrived_short", "create_failure", "may_pass", "object_missing", "writing_ended"]

_REFUSES_CONDITIONS: Final = frozenset({"501", "NotImplemented"})


def may_pass(error: DatasetStoreError) -> bool:
    """Whether an error may be gone the next time: exactly these kinds, as those below them tell of what stays."""
    return type(error) in {StorageFailed, StoreUnreachable}


def object_missing(key: str, where: str) -> ObjectMissing:
    """What a read raises of a key that holds no object, in the storage that `where` describes."""
    return ObjectMissing(f"There is no object '{key}' in {where}.", "Run verify to learn what is affected.")


def arrived_short(key: str, found: int, wanted: int, where: str) -> StorageFailed:
    """What a read raises where fewer bytes came than were asked for, of an object that has them."""
    return StorageFailed(
        f"{where} sent {found} bytes of '{key}' where {wanted} were asked for.",
        "The object is longer: repeat; if it stays so, check what lies between here and the storage.",
    )


def writing_ended(key: str) -> StorageFailed:
    """What a writer raises that was finished or given up."""
    return StorageFailed(f"The writing of '{key}' has ended.", "Write it again.")


def create_failure(key: str, where: str, told: DatasetStoreError, answers: Collection[str]) -> DatasetStoreError:
    """What `create` raises where its request failed: a refusal as it is told, anything else as an open outcome.

    Args:
        key: What was to be made.
        where: The storage, as described to a user.
        told: What any other request would raise for the same failure.
        answers: What the server answered, a code or HTTP's number; empty where no answer came.
    """
    if not _REFUSES_CONDITIONS.isdisjoint(answers):
        return StoreLacksCreateIfAbsent(
            f"Cannot create '{key}': {where} does not know conditional writes.",
            "Use a storage that honours If-None-Match; reading is safe.",
        )
    if not may_pass(told):
        return told
    said = f"the answer was {' '.join(sorted(answers))}" if answers else "no answer came"
    return OutcomeUnknown(f"'{key}' in {where} may or may not have been made: {said}.", "Read it back to learn.")
