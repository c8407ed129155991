"""What this package's command and ClearML's have in common: a copy is asked for by `get`, in one of three ways."""

from abc import abstractmethod
from pathlib import Path

from benchmarks.systems.base import Commands, Home, System


class DatasetCommands(System):
    @abstractmethod
    def get(self, home: Home, version: str, *words: str) -> Commands:
        """A copy of a version, as `words` say."""

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        return self.get(home, version, "--link", str(target))

    def update(self, home: Home, version: str, target: Path) -> Commands:
        return self.get(home, version, "--link", str(target), "--overwrite")

    def again(self, home: Home, version: str, target: Path) -> Commands:
        return self.get(home, version)

    def mutable(self, home: Home, version: str, target: Path) -> Commands:
        return self.get(home, version, "--copy", str(target))


def numbered(version: str) -> str:
    return f"1.0.{version.removeprefix('v')}"
