"""What is asked of a system: the commands that a user of it would type, nothing of it run in our process."""

import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, TypeAlias

from benchmarks.measuring.process import Command

Commands: TypeAlias = Sequence[Command]

BUCKET = "bench"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
"""What the clients of the object store are told."""

PEERS = Path(os.environ.get("BENCHMARK_PEERS", "build/peers")).absolute()
"""Where `python -m benchmarks install` puts the other systems."""


class Kind(StrEnum):
    """How a system stands in the tables."""

    OURS = "ours"
    VERSIONING = "versioning"
    """Stores what is the same once, or keeps versions by copying: every ratio that is asked is to these."""
    OTHER = "other"
    """Stands in the tables as it is: keeps no versions, or links instead of copying."""
    LIMIT = "limit"


@dataclass(frozen=True)
class Home:
    """The folders of one run of one system, all on its own image.

    Attributes:
        root: The image.
        machine: Whose caches are used: "first" made the versions, others have none of what it knows.
        service: The address of the server that the system needs beside its store; empty if none.
        far: The address of the object store that is the store, behind a link; empty where the store is a folder.
    """

    root: Path
    machine: str = "first"
    service: str = ""
    far: str = ""

    @property
    def tree(self) -> Path:
        """The folder that `data` is in: the repository, for those that keep it there."""
        return self.root / "tree"

    @property
    def data(self) -> Path:
        """What is versioned."""
        return self.tree / "data"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def caches(self) -> Path:
        """What the machine keeps besides the store."""
        return self.root / "machines" / self.machine

    def copy(self, name: str) -> Path:
        return self.root / "copies" / name

    def on(self, machine: str) -> "Home":
        return replace(self, machine=machine)


class System(ABC):
    """A system that keeps versions of a folder. Versions are called v1, v2, ….

    A method that returns None tells that the system has no such thing.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind] = Kind.VERSIONING
    makes_second_folder: ClassVar[bool] = False
    """Whether a copy of the next version is another folder, as the system can't bring one up to date."""
    reaches_far: ClassVar[bool] = False
    """Whether its store can be an object store."""

    @abstractmethod
    def version(self) -> Commands:
        """Commands that print which version this is."""

    def serving(self) -> AbstractContextManager[str]:
        """The address of the server that it needs beside its store, while that runs; empty if none."""
        return nullcontext("")

    @abstractmethod
    def begin(self, home: Home) -> Commands:
        """Make a store; not measured."""

    @abstractmethod
    def commit(self, home: Home, version: str) -> Commands:
        """Make a version of `home.data` as it is now."""

    def before_copies(self, home: Home, version: str) -> Commands:
        """What must be done before `copy` can make one of this version; not measured."""
        return []

    @abstractmethod
    def copy(self, home: Home, version: str, target: Path) -> Commands:
        """A new folder that holds a version."""

    def update(self, home: Home, version: str, target: Path) -> Commands | None:
        """A folder made by `copy` of another version becomes one of this, or the next lies beside it."""
        return self.copy(home, version, self.updated(version, target)) if self.makes_second_folder else None

    def updated(self, version: str, target: Path) -> Path:
        """The folder that `update` of a target leaves."""
        return target.with_name(f"{target.name}-{version}") if self.makes_second_folder else target

    def again(self, home: Home, version: str, target: Path) -> Commands | None:
        """The same as the last `update` asked, when nothing has changed."""
        return self.update(home, version, target.with_name("again") if self.makes_second_folder else target)

    def mutable(self, home: Home, version: str, target: Path) -> Commands | None:
        """A new folder that its user may change without harm to the store."""
        return self.copy(home, version, target)

    def diff(self, home: Home, old: str, new: str) -> Commands | None:
        return None

    def list(self, home: Home, version: str) -> Commands | None:
        return None

    def verify(self, home: Home) -> Commands | None:
        return None

    def from_python(self, home: Home, old: str, new: str) -> Commands | None:
        """Commands that time operations inside a process, and print seconds by operation, as JSON."""
        return None

    def data_in(self, home: Home, version: str, target: Path) -> Path:
        """Where in a target the versioned folder is."""
        return target

    def stored_in(self, home: Home) -> Sequence[Path]:
        """The folders whose bytes and files are the store."""
        return [home.store]

    def is_installed(self) -> bool:
        return all(shutil.which(one.argv[0]) is not None for one in self.version())


def peer(program: str) -> str:
    """The path of an installed peer's program; its name alone where only the machine may have it."""
    for folder in ("bin", "venv/bin"):
        path = PEERS / folder / program
        if path.exists():
            return str(path)
    return program


def ours(program: str) -> str:
    """A program of this package: as users install it, else beside the Python that runs this."""
    path = PEERS / "ours" / "bin" / program
    return str(path if path.exists() else Path(sys.executable).with_name(program))
