"""What differs between two versions, for people: paths, sizes, renames, and of tables rows and columns."""

from collections.abc import Callable, Sequence
from html import escape
from importlib import import_module
from typing import IO, Any

from msgspec import Struct

from dataset_store.core.diff import Difference
from dataset_store.core.entries import EXECUTABLE, KIND_BITS, Entries
from dataset_store.core.paths import to_text
from dataset_store.errors import DatasetStoreError

__all__ = ["Change", "DatasetDiff", "TableChange", "changes_of", "is_table"]

_TABLES = (".parquet", ".csv", ".feather", ".arrow")
_MOST_CSV_BYTES = 64 << 20
_SHOWN = 100


class Change(Struct, frozen=True):
    """One path that differs.

    Attributes:
        how: `added`, `removed`, `modified` or `renamed`.
        path: Its path; of what was removed the old one, else the new one.
        old_path: Where it was, of what was renamed; else None.
        old_size: In bytes; None of what was added.
        new_size: In bytes; None of what was removed.
    """

    how: str
    path: str
    old_path: str | None
    old_size: int | None
    new_size: int | None


class TableChange(Struct, frozen=True):
    """How a table differs: its rows before and after, and the columns that came, went, or have another type.

    Rows are None where a file is too long to count them, or is no table after all.
    """

    path: str
    old_rows: int | None
    new_rows: int | None
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    columns_changed: tuple[str, ...]


class DatasetDiff(Sequence[Change]):
    """Every path that differs, by path. What was moved unchanged is one rename.

    Args:
        changes: Sorted by path.
        open_old: Opens a file of the old side; None where that is a draft.
        open_new: The same of the new side.
    """

    __slots__ = ("_changes", "_open_new", "_open_old")

    def __init__(
        self,
        changes: Sequence[Change],
        open_old: Callable[[str], IO[bytes]] | None = None,
        open_new: Callable[[str], IO[bytes]] | None = None,
    ) -> None:
        self._changes = tuple(changes)
        self._open_old = open_old
        self._open_new = open_new

    def __getitem__(self, index: Any) -> Any:
        return self._changes[index]

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def added(self) -> list[str]:
        """Paths that only the new side has."""
        return self._paths("added")

    @property
    def removed(self) -> list[str]:
        """Paths that only the old side has."""
        return self._paths("removed")

    @property
    def modified(self) -> list[str]:
        """Paths on both sides that are not the same."""
        return self._paths("modified")

    @property
    def renamed(self) -> list[tuple[str, str]]:
        """Pairs of old and new path of what was moved unchanged."""
        return [(one.old_path or "", one.path) for one in self if one.how == "renamed"]

    @property
    def bytes_added(self) -> int:
        """By how many bytes the files of the new side are more (or, below 0, less)."""
        return sum((one.new_size or 0) - (one.old_size or 0) for one in self)

    def tables(self) -> list[TableChange]:
        """How the tables among the modified files differ; of drafts nothing is known.

        Of Parquet files only the footers are read.

        Raises:
            CorruptObject, ObjectMissing: The store is damaged.
        """
        if self._open_old is None or self._open_new is None:
            return []
        paths = [one.path for one in self if one.how == "modified" and is_table(one.path)]
        return [_table_change(path, _shape(path, self._open_old), _shape(path, self._open_new)) for path in paths]

    def __str__(self) -> str:
        told = [f"{len(paths)} {how}" for how, paths in self._by_kind()]
        return ", ".join(told)

    def __repr__(self) -> str:
        return f"<DatasetDiff {self}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{one.how}</td><td>{escape(_shown_path(one))}</td><td>{_sizes(one)}</td></tr>"
            for one in self._changes[:_SHOWN]
        )
        more = f"<p>… and {len(self) - _SHOWN:,} more</p>" if len(self) > _SHOWN else ""
        head = "<tr><th>change</th><th>path</th><th>bytes</th></tr>"
        return f"<p>{escape(str(self))}</p><table>{head}{rows}</table>{more}"

    def _paths(self, how: str) -> list[str]:
        return [one.path for one in self if one.how == how]

    def _by_kind(self) -> list[tuple[str, Sequence[object]]]:
        return [
            ("added", self.added),
            ("modified", self.modified),
            ("removed", self.removed),
            ("renamed", self.renamed),
        ]


def changes_of(difference: Difference) -> list[Change]:
    """The changes of a difference, sorted by path."""
    moved = _moves(difference.removed, difference.added)
    gone, came = set(moved.values()), set(moved)
    found = [
        Change("removed", to_text(key), None, int(size), None)
        for row, (key, size) in enumerate(zip(difference.removed.keys, difference.removed.sizes, strict=True))
        if row not in gone
    ]
    for row, (key, size) in enumerate(zip(difference.added.keys, difference.added.sizes, strict=True)):
        if row in came:
            old = to_text(difference.removed.keys[moved[row]])
            found.append(Change("renamed", to_text(key), old, int(size), int(size)))
        else:
            found.append(Change("added", to_text(key), None, None, int(size)))
    sizes = zip(difference.modified_old.sizes.tolist(), difference.modified_new.sizes.tolist(), strict=True)
    found += [
        Change("modified", to_text(key), None, old_size, new_size)
        for key, (old_size, new_size) in zip(difference.modified_new.keys, sizes, strict=True)
    ]
    return sorted(found, key=lambda one: one.path)


def is_table(path: str) -> bool:
    """Whether a path's name is that of a table whose rows and columns can be told."""
    return path.lower().endswith(_TABLES)


def _moves(removed: Entries, added: Entries) -> dict[int, int]:
    """For rows that were added the row that was removed with the same content; each is used once, in order."""
    held: dict[tuple[bytes, int], list[int]] = {}
    for row in range(len(removed) - 1, -1, -1):
        if removed.sizes[row]:
            held.setdefault(_identity(removed, row), []).append(row)
    found: dict[int, int] = {}
    for row in range(len(added)):
        rows = held.get(_identity(added, row)) if added.sizes[row] else None
        if rows:
            found[row] = rows.pop()
    return found


def _identity(entries: Entries, row: int) -> tuple[bytes, int]:
    return entries.content_ids[row].tobytes(), int(entries.kinds[row]) & (KIND_BITS | EXECUTABLE)


def _shown_path(one: Change) -> str:
    return f"{one.old_path} → {one.path}" if one.old_path else one.path


def _sizes(one: Change) -> str:
    if one.how == "modified":
        return f"{one.old_size:,} → {one.new_size:,}"
    return f"{one.new_size if one.new_size is not None else one.old_size or 0:,}"


# --- tables ----------------------------------------------------------------------------------------------------------


class _Shape(Struct, frozen=True):
    rows: int | None
    columns: dict[str, str]


def _shape(path: str, opener: Callable[[str], IO[bytes]]) -> _Shape:
    """Rows and columns of a table; of what cannot be read as one, neither."""
    name = path.lower()
    try:
        with opener(path) as file:
            if name.endswith(".parquet"):
                found = import_module("pyarrow.parquet").ParquetFile(file)
                return _Shape(found.metadata.num_rows, _columns(found.schema_arrow))
            if name.endswith(".csv"):
                return _csv_shape(file)
            table = import_module("pyarrow.feather").read_table(file)
            return _Shape(table.num_rows, _columns(table.schema))
    except DatasetStoreError:
        raise
    except Exception:  # noqa: BLE001 - whatever a reader of tables says, the file is then none
        return _Shape(None, {})


def _csv_shape(file: IO[bytes]) -> _Shape:
    csv = import_module("pyarrow.csv")
    size = file.seek(0, 2)
    file.seek(0)
    if size > _MOST_CSV_BYTES:
        with csv.open_csv(file) as reader:
            return _Shape(None, _columns(reader.schema))
    table = csv.read_csv(file)
    return _Shape(table.num_rows, _columns(table.schema))


def _columns(schema: Any) -> dict[str, str]:
    return {column.name: str(column.type) for column in schema}


def _table_change(path: str, old: _Shape, new: _Shape) -> TableChange:
    common = old.columns.keys() & new.columns.keys()
    return TableChange(
        path=path,
        old_rows=old.rows,
        new_rows=new.rows,
        columns_added=tuple(name for name in new.columns if name not in old.columns),
        columns_removed=tuple(name for name in old.columns if name not in new.columns),
        columns_changed=tuple(
            name for name in new.columns if name in common and old.columns[name] != new.columns[name]
        ),
    )
