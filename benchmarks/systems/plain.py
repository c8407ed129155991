"""Systems that copy or link: rsync, ostree, and `cp -a`, which is a limit."""

from pathlib import Path

from benchmarks.measuring.process import Command
from benchmarks.systems.base import Commands, Home, Kind, System


class Rsync(System):
    """Each version a folder, in which unchanged files are hard links to the one before."""

    name = "rsync --link-dest"
    kind = Kind.OTHER

    def version(self) -> Commands:
        return [Command(["rsync", "--version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        return [Command(["mkdir", str(home.store)], home.root)]

    def commit(self, home: Home, version: str) -> Commands:
        last = sorted(home.store.iterdir(), key=lambda one: int(one.name.removeprefix("v")))[-1:]
        links = [f"--link-dest={one}" for one in last]
        return [Command(["rsync", "-a", *links, f"{home.data}/", f"{home.store / version}/"], home.root)]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        return [Command(["rsync", "-a", f"{home.store / version}/", f"{target}/"], home.root)]

    def update(self, home: Home, version: str, target: Path) -> Commands:
        return [Command(["rsync", "-a", "--delete", f"{home.store / version}/", f"{target}/"], home.root)]

    def diff(self, home: Home, old: str, new: str) -> Commands:
        words = ["-an", "--delete", "--itemize-changes", f"{home.store / new}/", f"{home.store / old}/"]
        return [Command(["rsync", *words], home.root)]

    def list(self, home: Home, version: str) -> Commands:
        return [Command(["find", str(home.store / version), "-type", "f", "-printf", "%P %s\n"], home.root)]


class Ostree(System):
    """Copies are links to the repository, which a user must not write to."""

    name = "ostree"
    kind = Kind.OTHER
    makes_second_folder = True

    def run(self, home: Home, *words: str) -> Command:
        return Command(["ostree", f"--repo={home.store}", *words], home.root)

    def version(self) -> Commands:
        return [Command(["ostree", "--version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        return [Command(["mkdir", str(home.store)], home.root), self.run(home, "init", "--mode=bare-user")]

    def commit(self, home: Home, version: str) -> Commands:
        return [self.run(home, "commit", "-b", version, f"--tree=dir={home.data}")]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        return [self.run(home, "checkout", "-U", "-H", version, str(target))]

    def mutable(self, home: Home, version: str, target: Path) -> Commands:
        return [self.run(home, "checkout", "-U", "-C", version, str(target))]

    def diff(self, home: Home, old: str, new: str) -> Commands:
        return [self.run(home, "diff", old, new)]

    def list(self, home: Home, version: str) -> Commands:
        return [self.run(home, "ls", "-R", version)]

    def verify(self, home: Home) -> Commands:
        return [self.run(home, "fsck", "-q")]


class Cp(System):
    """Every version a whole copy."""

    name = "cp -a"
    kind = Kind.LIMIT
    makes_second_folder = True

    def version(self) -> Commands:
        return [Command(["cp", "--version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        return [Command(["mkdir", str(home.store)], home.root)]

    def commit(self, home: Home, version: str) -> Commands:
        return [Command(["cp", "-a", str(home.data), str(home.store / version)], home.root)]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        return [Command(["cp", "-a", str(home.store / version), str(target)], home.root)]

    def list(self, home: Home, version: str) -> Commands:
        return [Command(["find", str(home.store / version), "-type", "f", "-printf", "%P %s\n"], home.root)]
