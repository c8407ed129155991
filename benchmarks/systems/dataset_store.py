"""This package, through its own command."""

from pathlib import Path

from benchmarks.measuring.process import Command
from benchmarks.systems.base import BUCKET, KEYS, Commands, Home, Kind, ours
from benchmarks.systems.dataset_commands import DatasetCommands, numbered

PROGRAM = Path(__file__).parents[1] / "measuring" / "api_program.py"


class DatasetStore(DatasetCommands):
    name = "dataset_store"
    kind = Kind.OURS
    reaches_far = True

    def run(self, home: Home, *words: str) -> Command:
        env = {"DATASET_STORE_CACHE": str(home.caches / "cache"), "DATASET_STORE_DATA": str(home.caches / "own")}
        if home.far:
            env |= {"DATASET_STORE_URL": f"s3://{BUCKET}/store", "AWS_ENDPOINT_URL": home.far, **KEYS}
        else:
            env |= {"DATASET_STORE_URL": str(home.store)}
        return Command([ours("dataset-store"), *words], home.root, env)

    def version(self) -> Commands:
        return [Command([ours("dataset-store"), "--version"], Path.cwd())]

    def begin(self, home: Home) -> Commands:
        return []

    def commit(self, home: Home, version: str) -> Commands:
        parents = [] if version == "v1" else ["--parents", "latest"]
        words = ["--project", "p", "--name", "n", "--version", numbered(version), *parents, "--folder", str(home.data)]
        return [self.run(home, "sync", *words)]

    def get(self, home: Home, version: str, *words: str) -> Commands:
        return [self.run(home, "get", "--project", "p", "--name", "n", "--version", numbered(version), *words)]

    def diff(self, home: Home, old: str, new: str) -> Commands:
        words = ["--project", "p", "--name", "n", "--version", numbered(new)]
        return [self.run(home, "diff", *words)]

    def list(self, home: Home, version: str) -> Commands:
        return [self.run(home, "list", "--project", "p", "--name", "n", "--version", numbered(version))]

    def from_python(self, home: Home, old: str, new: str) -> Commands:
        whole = self.run(home)
        words = [str(PROGRAM), "p", "n", numbered(old), numbered(new)]
        return [Command([ours("python"), *words], whole.cwd, whole.env)]

    def verify(self, home: Home) -> Commands:
        return [self.run(home, "verify", "--all")]
