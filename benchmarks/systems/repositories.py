"""Systems whose repository is around the folder: git, git-lfs, DVC, Oxen."""

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring.process import Command
from benchmarks.systems.base import BUCKET, KEYS, PEERS, Commands, Home, Kind, System, peer

WHO = {
    "GIT_AUTHOR_NAME": "b",
    "GIT_AUTHOR_EMAIL": "b@localhost",
    "GIT_COMMITTER_NAME": "b",
    "GIT_COMMITTER_EMAIL": "b@localhost",
}


def path_with_peers() -> str:
    return os.pathsep.join([str(PEERS / "bin"), str(PEERS / "venv" / "bin"), os.environ["PATH"]])


class Git(System):
    """With automatic collection off, so that none falls into what is measured."""

    name = "git"
    kind = Kind.OTHER

    def git(self, where: Path, *words: str) -> Command:
        return Command(["git", *words], where, {**WHO, "PATH": path_with_peers()})

    def version(self) -> Commands:
        return [Command(["git", "--version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        tree = home.tree
        return [self.git(tree, "init", "-q"), self.git(tree, "config", "gc.auto", "0")]

    def commit(self, home: Home, version: str) -> Commands:
        return [self.git(home.tree, "add", "-A", "data"), *self.recorded(home, version)]

    def recorded(self, home: Home, version: str) -> Commands:
        """What was added becomes a commit and a tag."""
        return [
            self.git(home.tree, "commit", "-q", "--allow-empty", "-m", version),
            self.git(home.tree, "tag", version),
        ]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        return [self.git(home.tree, "worktree", "add", "-q", "--detach", str(target), version)]

    def update(self, home: Home, version: str, target: Path) -> Commands:
        return [self.git(target, "checkout", "-q", "--detach", version)]

    def data_in(self, home: Home, version: str, target: Path) -> Path:
        return target / "data"

    def diff(self, home: Home, old: str, new: str) -> Commands:
        return [self.git(home.tree, "diff", "--name-status", old, new)]

    def list(self, home: Home, version: str) -> Commands:
        return [self.git(home.tree, "ls-tree", "-r", "-l", version)]

    def verify(self, home: Home) -> Commands | None:
        return [self.git(home.tree, "fsck", "--full", "--no-progress")]

    def stored_in(self, home: Home) -> Sequence[Path]:
        return [home.tree / ".git"]


class GitLfs(Git):
    name = "git-lfs"
    kind = Kind.VERSIONING

    def version(self) -> Commands:
        return [Command([peer("git-lfs"), "version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        (home.tree / ".gitattributes").write_text("data/** filter=lfs diff=lfs merge=lfs -text\n")
        added = self.git(home.tree, "add", ".gitattributes")
        return [*super().begin(home), self.git(home.tree, "lfs", "install", "--local"), added]

    def verify(self, home: Home) -> Commands:
        return [self.git(home.tree, "lfs", "fsck")]


class Dvc(Git):
    """A copy is a clone of the Git repository, which is small.

    Its cache of contents is that of the first machine, or empty, where contents are in a far store.
    """

    name = "DVC"
    reaches_far = True
    kind = Kind.VERSIONING
    link = "copy"

    def dvc(self, where: Path, *words: str) -> Command:
        env = {
            **WHO,
            "PATH": path_with_peers(),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(where / ".dvc" / "site"),
            **KEYS,
        }
        return Command([peer("dvc"), *words], where, env)

    def version(self) -> Commands:
        return [Command([peer("dvc"), "--version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        def config(*words: str) -> Command:
            return self.dvc(home.tree, "config", *words)

        return [
            *super().begin(home),
            self.dvc(home.tree, "init", "-q"),
            config("core.analytics", "false"),
            config("core.check_update", "false"),
            config("core.autostage", "true"),
            config("cache.dir", str(home.store)),
            config("cache.type", self.link),
            *(self.to_far(home) if home.far else []),
            self.git(home.tree, "commit", "-q", "-am", "begin"),
        ]

    def to_far(self, home: Home) -> Commands:
        return [
            self.dvc(home.tree, "remote", "add", "-q", "-d", "far", f"s3://{BUCKET}/store"),
            self.dvc(home.tree, "remote", "modify", "far", "endpointurl", home.far),
        ]

    def commit(self, home: Home, version: str) -> Commands:
        pushed = [self.dvc(home.tree, "push", "-q")] if home.far else []
        return [self.dvc(home.tree, "add", "-q", "data"), *self.recorded(home, version), *pushed]

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        cloned = self.git(home.root, "clone", "-q", "--branch", version, str(home.tree), str(target))
        own = [self.dvc(target, "config", "--local", "cache.dir", str(home.caches / "dvc"))] if home.far else []
        return [cloned, *own, *self.contents(home, target)]

    def update(self, home: Home, version: str, target: Path) -> Commands:
        return [*super().update(home, version, target), *self.contents(home, target)]

    def contents(self, home: Home, target: Path) -> Commands:
        return [self.dvc(target, "pull" if home.far else "checkout", "-q")]

    def diff(self, home: Home, old: str, new: str) -> Commands:
        return [self.dvc(home.tree, "diff", "-q", old, new)]

    def list(self, home: Home, version: str) -> Commands:
        return [self.dvc(home.tree, "list", "-R", "--rev", version, ".", "data")]

    def verify(self, home: Home) -> None:
        return None

    def stored_in(self, home: Home) -> Sequence[Path]:
        return [home.store, home.tree / ".git", home.tree / ".dvc" / "tmp", home.tree / ".dvc" / "site"]


class DvcLinks(Dvc):
    """Copies are links to the cache, which a user must not write to."""

    name = "DVC (hard links)"
    kind = Kind.OTHER
    link = "hardlink"
    reaches_far = False


class Oxen(System):
    """Through its Python package. A copy is made in the repository's own folder, as it has no other."""

    name = "Oxen"

    def python(self, home: Home, script: str) -> Commands:
        begin = "import sys; from oxen import Repo, user; user.config_user('b', 'b@localhost'); "
        return [Command([peer("python"), "-c", begin + script], home.tree)]

    def version(self) -> Commands:
        script = "import importlib.metadata as m; print(m.version('oxenai'))"
        return [Command([peer("python"), "-c", script], Path.cwd())]

    def is_installed(self) -> bool:
        return (PEERS / "venv" / "bin" / "python").exists()

    def begin(self, home: Home) -> Commands:
        return self.python(home, "Repo('.', mkdir=True).init()")

    def commit(self, home: Home, version: str) -> Commands:
        # `add` does not see that files are gone, and a commit of nothing is an error.
        script = (
            "r = Repo('.')\n"
            "for path in r.status().unstaged_removed_files(): r.rm(path, recursive=True)\n"
            "r.add('data')\n"
            f"try: r.commit('{version}')\n"
            "except ValueError: pass\n"
            f"r.checkout('{version}', create=True)"
        )
        return self.python(home, script)

    def before_copies(self, home: Home, version: str) -> Commands:
        return self.python(home, f"import shutil; Repo('.').checkout('{version}'); shutil.rmtree('data')")

    def copy(self, home: Home, version: str, target: Path) -> Commands:
        return self.python(home, "Repo('.').restore('data')")

    def update(self, home: Home, version: str, target: Path) -> Commands:
        return self.python(home, f"Repo('.').checkout('{version}')")

    def mutable(self, home: Home, version: str, target: Path) -> None:
        return None

    def data_in(self, home: Home, version: str, target: Path) -> Path:
        return home.data

    def stored_in(self, home: Home) -> Sequence[Path]:
        return [home.tree / ".oxen"]
