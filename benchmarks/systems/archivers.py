"""Systems that keep versions in a store beside the folder: restic, borg, casync, desync."""

import shutil
from pathlib import Path
from typing import ClassVar

from benchmarks.measuring.process import Command
from benchmarks.systems.base import BUCKET, KEYS, Commands, Home, System, peer


class Restic(System):
    name = "restic"
    reaches_far = True

    def run(self, home: Home, *words: str, cwd: Path | None = None) -> Command:
        store = f"s3:{home.far}/{BUCKET}/store" if home.far else str(home.store)
        env = {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": store, "RESTIC_CACHE_DIR": str(home.caches), **KEYS}
        return Command([peer("restic"), "-q", *words], cwd or home.root, env)

    def version(self) -> Commands:
        return [Command([peer("restic"), "version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        return [self.run(home, "init")]

    def commit(self, home: Home, version: str) -> Commands:
        return [self.run(home, "backup", "--tag", version, ".", cwd=home.data)]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        return [self.run(home, "restore", "latest", "--tag", version, "--target", str(target))]

    def update(self, home: Home, version: str, target: Path) -> Commands:
        words = ["--target", str(target), "--overwrite", "if-changed", "--delete"]
        return [self.run(home, "restore", "latest", "--tag", version, *words)]

    def diff(self, home: Home, old: str, new: str) -> Commands:
        # Snapshots of a tag are named by id only; looking it up is part of what a user does.
        script = (
            'a=$("$0" -q snapshots --json --latest 1 --tag "$1" | sed \'s/.*"short_id":"\\([^"]*\\)".*/\\1/\'); '
            'b=$("$0" -q snapshots --json --latest 1 --tag "$2" | sed \'s/.*"short_id":"\\([^"]*\\)".*/\\1/\'); '
            '"$0" -q diff $a $b'
        )
        whole = self.run(home)
        return [Command(["sh", "-c", script, peer("restic"), old, new], whole.cwd, whole.env)]

    def list(self, home: Home, version: str) -> Commands:
        return [self.run(home, "ls", "latest", "--tag", version)]

    def verify(self, home: Home) -> Commands:
        return [self.run(home, "check", "--read-data")]


class Borg(System):
    name = "borg"
    makes_second_folder = True

    def run(self, home: Home, *words: str, cwd: Path | None = None) -> Command:
        env = {"BORG_BASE_DIR": str(home.caches), "BORG_REPO": str(home.store)}
        env |= {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        return Command([peer("borg"), *words], cwd or home.root, env)

    def version(self) -> Commands:
        return [Command([peer("borg"), "--version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        return [self.run(home, "init", "-e", "none")]

    def commit(self, home: Home, version: str) -> Commands:
        return [self.run(home, "create", f"::{version}", ".", cwd=home.data)]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        target.mkdir(parents=True, exist_ok=True)
        return [self.run(home, "extract", f"::{version}", cwd=target)]

    def diff(self, home: Home, old: str, new: str) -> Commands:
        return [self.run(home, "diff", f"::{old}", new)]

    def list(self, home: Home, version: str) -> Commands:
        return [self.run(home, "list", f"::{version}")]

    def verify(self, home: Home) -> Commands:
        return [self.run(home, "check", "--verify-data")]


class _ChunkStore(System):
    """A folder of chunks, and an index of each version beside it."""

    program: ClassVar[str]

    def run(self, home: Home, *words: str) -> Command:
        return Command([peer(self.program), *words], home.root, {"S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret"})

    def place(self, home: Home, name: str) -> str:
        return f"s3+{home.far}/{BUCKET}/{name}?lookup=path" if home.far else str(home.store / name)

    def index(self, home: Home, version: str) -> str:
        return self.place(home, f"{version}.caidx")

    def chunks(self, home: Home) -> str:
        return self.place(home, "chunks.castr")

    def begin(self, home: Home) -> Commands:
        return [] if home.far else [Command(["mkdir", "-p", self.chunks(home)], home.root)]


class Casync(_ChunkStore):
    name = "casync"
    program = "casync"

    def version(self) -> Commands:
        return [Command([peer("casync"), "--version"], Path.cwd())]

    def commit(self, home: Home, version: str) -> Commands:
        words = [f"--store={self.chunks(home)}", "--with=unix", "--with=symlinks"]
        return [self.run(home, "make", *words, self.index(home, version), str(home.data))]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        target.parent.mkdir(parents=True, exist_ok=True)
        return [self.run(home, "extract", f"--store={self.chunks(home)}", self.index(home, version), str(target))]

    def update(self, home: Home, version: str, target: Path) -> Commands:
        return self.copy(home, version, target)

    def list(self, home: Home, version: str) -> Commands:
        return [self.run(home, "list", f"--store={self.chunks(home)}", self.index(home, version))]


class Desync(_ChunkStore):
    name = "desync"
    reaches_far = True
    program = "desync"
    makes_second_folder = True

    def version(self) -> Commands:
        return [Command(["cat", peer("desync.version")], Path.cwd())]

    def is_installed(self) -> bool:
        return shutil.which(peer("desync")) is not None

    def commit(self, home: Home, version: str) -> Commands:
        return [self.run(home, "tar", "-i", "-s", self.chunks(home), self.index(home, version), str(home.data))]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        target.mkdir(parents=True, exist_ok=True)
        return [self.run(home, "untar", "-i", "-s", self.chunks(home), self.index(home, version), str(target))]

    def verify(self, home: Home) -> Commands | None:
        return None if home.far else [self.run(home, "verify", "-s", self.chunks(home))]
