"""Drafts: versions in the making, kept on this machine as append-only journals.

A draft's state is the fold of its journal's records, as the store's is of its log's. Each record is durable when the
call that made it returns, so the steps of a draft may be separate processes. A torn last record is one whose call
never returned; it is cut off. A record that follows from a state is refused where the journal has gone on since that
state was read, so nothing that another process added is passed over. A draft is in no log: discarding one leaves
nothing in the store but packs that gc collects.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from dataset_store.core.arrays import I64, Bool, np
from dataset_store.core.entries import KIND_BITS, Changes, Entries, compose
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import PathKey, to_path
from dataset_store.errors import Conflict, CorruptObject, DatasetNotFound
from dataset_store.local.draft_records import (
    Batch,
    Committing,
    Held,
    Labels,
    Lost,
    Metadata,
    Opened,
    Output,
    Record,
    Reported,
    Sent,
    Source,
    read_records,
    write_record,
)
from dataset_store.local.durable import flush_folder, make_folder
from dataset_store.local.os_errors import naming_writes, reading_error, writing_error

__all__ = ["Draft", "draft_ids", "pending_rows"]

_JOURNAL = "journal"
_FINALIZING = "finalizing"


def pending_rows(entries: Entries) -> Bool:
    """Which rows have a content that is in no pack yet; shape (n,)."""
    kinds = entries.kinds & KIND_BITS
    has_content = ((kinds <= Kind.SYMLINK) & (entries.sizes > 0)) | (kinds == Kind.EXTERNAL)
    rows: Bool = has_content & (entries.segment_counts == 0)
    return rows


def draft_ids(directory: str) -> list[str]:
    """The ids of the drafts kept under `directory`.

    Raises:
        AccessDenied, StorageFailed: The folder cannot be read.
    """
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise reading_error(error, directory) from error


class Draft:
    """One draft's journal and the state that it amounts to.

    Args:
        directory: The folder of this draft.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = os.path.join(directory, _JOURNAL)
        self.opened: Opened
        self.labels = Labels([], None)
        self.output: str | None = None
        self.metadata: dict[str, bytes] = {}
        self.reports: list[bytes] = []
        self.report_bytes = 0
        self.sent: Sent | None = None
        self.committing = False
        self.held = False
        self.lost: frozenset[PathKey] = frozenset()
        self.inherited = Changes.none()  # of `changes`, what the draft began with
        self.changes = Changes.none()
        self._sources: list[tuple[Source, int]] = []  # with the offsets of their records
        self._end = 0  # bytes of the journal that this state is the fold of

    @staticmethod
    def create(directory: str, opened: Opened, labels: Labels, output: Output) -> "Draft":
        """Begin a draft in a folder that does not exist yet."""
        parent = os.path.dirname(directory)
        with naming_writes(directory):
            make_folder(parent)
            os.mkdir(directory, 0o700)
            flush_folder(parent)
        draft = Draft(directory)
        draft.append(opened, labels, output)
        return draft

    @staticmethod
    def load(directory: str) -> "Draft":
        """Read a draft back.

        Raises:
            DatasetNotFound: There is none.
            CorruptObject: Its journal is damaged, not just torn at its end.
        """
        draft = Draft(directory)
        for at, record, end in read_records(draft.path, 0):
            draft._fold(record, at, record.changes() if isinstance(record, Batch) else None)
            draft._end = end
        if not draft._end:
            raise DatasetNotFound(
                f"There is no draft {draft._name} on this machine.", "Drafts live where they were created."
            )
        return draft

    def is_current(self) -> bool:
        """Whether the journal says no more than this state; what a broken-off call left behind it counts too."""
        try:
            return os.stat(self.path).st_size == self._end
        except FileNotFoundError:
            return False

    def append(
        self, *records: Opened | Labels | Output | Metadata | Reported | Sent | Committing | Held | Lost
    ) -> None:
        """Make records durable, then part of the state.

        Raises:
            Conflict: Another process is changing the draft, or has since this state was read; nothing was added.
            DatasetNotFound: The draft was finalized or discarded meanwhile.
        """
        at = self._write(records)
        for record in records:
            self._fold(record, at)

    def change(self, changes: Changes, source: Source | None = None) -> None:
        """Add changes; rows without segments have their content in `source`.

        Raises:
            Conflict: The draft was handed to a commit whose outcome is not known; or as `append`.
            DatasetNotFound: As `append`.
        """
        self._require_open()
        batch = Batch.of(changes, source)
        self._fold(batch, self._write([batch]), changes)

    def record_sent(self, rows: Entries, sent: Sent) -> None:
        """Record where contents of the draft are, and that with these all is sent.

        What the draft holds stays the same, so this may be done while it is being committed.

        Raises:
            Conflict, DatasetNotFound: As `append`.
        """
        placed = Changes(rows, [])
        batches = [Batch.of(placed, None)] if len(rows) else []
        at = self._write([*batches, sent])
        for batch in batches:
            self._fold(batch, at, placed)
        self._fold(sent, at)

    def lose(self, keys: Sequence[PathKey]) -> None:
        """Record that the contents of entries are nowhere any more: they count as removed until they are added again.

        Raises:
            Conflict, DatasetNotFound: As `append`.
        """
        removed = Changes(Entries.empty(), sorted(keys))
        batch, lost = Batch.of(removed, None), Lost(sorted(self.lost.union(keys)))
        at = self._write([batch, lost])
        self._fold(batch, at, removed)
        self._fold(lost, at)

    def relabel(self, labels: Labels) -> None:
        """Give the draft other tags and another description. Raises as `change`."""
        self._require_open()
        self.append(labels)

    def annotate(self, *pieces: Metadata) -> None:
        """Set or remove pieces of metadata. Raises as `change`."""
        self._require_open()
        self.append(*pieces)

    def report(self, line: bytes) -> None:
        """Add a report. Raises as `change`."""
        self._require_open()
        self.append(Reported(line))

    def redirect(self, output: Output) -> None:
        """Send what is not sent yet to another root. Raises as `change`."""
        self._require_open()
        self.append(output)

    def _require_open(self) -> None:
        if self.committing:
            raise Conflict(
                f"The draft {self.opened.id} is being finalized and takes no more changes.",
                "Finalize it again to learn whether it landed; repeating is safe.",
            )

    def pending(self) -> Entries:
        """Rows whose content is not in any pack yet."""
        entries = self.changes.entries
        rows = pending_rows(entries)
        return entries if rows.all() else entries.take(rows)

    def sources_of(self, keys: Sequence[PathKey]) -> Iterator[Source]:
        """For each key of a pending row, where its content lies: the latest call that changed it says.

        Raises:
            CorruptObject: No call says it.
        """
        if not self._sources and keys:
            raise CorruptObject(
                f"The draft {self._name} does not say where '{os.fsdecode(to_path(keys[0]))}' was added from.",
                "Discard the draft and make it again; no finished version is affected.",
            )
        # What no later call changed is the first one's, whose rows need not be read to know that.
        return (self._sources[max(number, 0)][0] for number in self._latest_calls(keys, 1).tolist())

    def known_sources(self, keys: Sequence[PathKey]) -> list[Source | None]:
        """For each key, sent or not, where its content lay when it was added; None where it came without a file."""
        numbers = self._latest_calls(keys, 0).tolist()
        return [self._sources[number][0] if number >= 0 else None for number in numbers]

    def _latest_calls(self, keys: Sequence[PathKey], first: int) -> I64:
        """The number of the latest source, from `first` on, whose call changed each key; -1 where none did."""
        numbers = np.full(len(keys), -1, np.int64)
        rest = np.arange(len(keys))
        for number in range(len(self._sources) - 1, first - 1, -1):
            found = next(read_records(self.path, self._sources[number][1]), None)
            if found is None:
                raise self._gone()
            rows = found[1].changes().entries if isinstance(found[1], Batch) else Entries.empty()
            has = rows.find_many([keys[at] for at in rest.tolist()]) >= 0
            numbers[rest[has]] = number
            rest = rest[~has]
        return numbers

    def discard(self) -> None:
        """Remove the draft from this machine."""
        import shutil  # noqa: PLC0415  (with all its archives)

        shutil.rmtree(self.directory, ignore_errors=True)

    def _write(self, records: Sequence[Record]) -> int:
        """Make records durable at the end of the journal; the offset of the first."""
        begin = self._end
        with self._locked(), naming_writes(self.path):
            self._require_unchanged()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, begin)
                end = os.lseek(descriptor, begin, os.SEEK_SET)
                for record in records:
                    end += write_record(descriptor, record)
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):  # what may not be durable is not to be found later either
                    os.ftruncate(descriptor, begin)
                raise
            finally:
                os.close(descriptor)
            flush_folder(self.directory)
        self._end = end
        return begin

    def _require_unchanged(self) -> None:
        """Refuse where the journal is not the one that this state is of; a torn record behind it is no change."""
        size = os.stat(self.path).st_size if os.path.exists(self.path) else 0
        if size < self._end or next(read_records(self.path, self._end), None) is not None:
            raise Conflict(f"Another process has changed the draft {self._name}.", "Get it again, then repeat.")

    def _fold(self, record: Record, at: int, changes: Changes | None = None) -> None:
        """Take a record into the state; `changes` are those of a batch."""
        if isinstance(record, Opened):
            self.opened = record
            self.changes = self.inherited = record.inherited.changes() if record.inherited else Changes.none()
        elif isinstance(record, Batch):
            self._fold_batch(record, at, changes or Changes.none())
        elif isinstance(record, Sent):
            self.sent = record
        elif isinstance(record, Committing):
            self.committing = record.active
        elif isinstance(record, Held):
            self.held = True
        elif isinstance(record, Lost):
            self.lost = frozenset(record.keys)
        else:
            self._fold_words(record)

    def _fold_batch(self, record: Batch, at: int, changes: Changes) -> None:
        self.changes = compose(self.changes, changes)
        self.lost -= set(changes.entries.keys)
        self.sent = None
        if record.root or record.links:
            self._sources.append((Source(record.root, record.below, record.links), at))

    def _fold_words(self, record: Labels | Output | Metadata | Reported) -> None:
        """What is said of the draft, or kept beside its files."""
        if isinstance(record, Labels):
            self.labels = record
        elif isinstance(record, Output):
            self.output = record.url
        elif isinstance(record, Reported):
            self.reports.append(record.line)
            self.report_bytes += len(record.line) + 1
            self.sent = None
        else:
            self.metadata.pop(record.name, None)
            if record.data is not None:
                self.metadata[record.name] = record.data
            self.sent = None

    @property
    def _name(self) -> str:
        return os.path.basename(self.directory)

    def _gone(self) -> DatasetNotFound:
        return DatasetNotFound(
            f"The draft {self._name} is no longer on this machine.", "It was finalized or discarded meanwhile."
        )

    @contextmanager
    def finalizing(self) -> Iterator[None]:
        """Keep other processes from finalizing the draft, and from deciding what became of a commit that is under way.

        Raises:
            Conflict: Another process is finalizing it, or has changed it since this state was read.
            DatasetNotFound: It was finalized or discarded meanwhile.
        """
        with self._alone(os.path.join(self.directory, _FINALIZING), os.O_RDWR | os.O_CREAT, "finalizing"):
            self._require_unchanged()
            yield

    def _locked(self) -> AbstractContextManager[None]:
        return self._alone(self.directory, os.O_RDONLY | os.O_DIRECTORY, "changing")

    @contextmanager
    def _alone(self, path: str, flags: int, doing: str) -> Iterator[None]:
        """Hold the lock of a file of the draft, or of its folder; nobody waits for it."""
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise self._gone() from error
        except OSError as error:
            raise writing_error(error, path) from error
        try:
            with naming_writes(path):
                self._lock(descriptor, doing)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int, doing: str) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"Another process is {doing} the draft {self._name}.", "Wait for it to finish, then repeat."
            ) from error
