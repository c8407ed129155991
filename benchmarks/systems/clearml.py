"""ClearML's datasets, through its command. Its server is a stand-in beside it, so no figure holds a server's work."""

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.measuring.process import Command
from benchmarks.servers.beside import ask, beside
from benchmarks.systems.base import BUCKET, KEYS, Commands, Home, peer
from benchmarks.systems.dataset_commands import DatasetCommands, numbered


class ClearML(DatasetCommands):
    name = "ClearML"
    reaches_far = True

    def serving(self) -> AbstractContextManager[str]:
        return beside("clearml_api")

    def run(self, home: Home, *words: str) -> Command:
        env = {
            "CLEARML_API_HOST": home.service,
            "CLEARML_WEB_HOST": home.service,
            "CLEARML_FILES_HOST": self.storage(home),
            "CLEARML_API_ACCESS_KEY": "key",
            "CLEARML_API_SECRET_KEY": "secret",
            "CLEARML_CACHE_DIR": str(home.caches),
            "CLEARML_CONFIG_FILE": str(self.settings(home)),
        }
        return Command([peer("clearml-data"), *words], home.root, env)

    def storage(self, home: Home) -> str:
        return f"s3://{home.far.removeprefix('http://')}/{BUCKET}" if home.far else str(home.store)

    def settings(self, home: Home) -> Path:
        return home.root / "clearml.conf"

    def version(self) -> Commands:
        script = "import importlib.metadata as m; print(m.version('clearml'))"
        return [Command([peer("python"), "-c", script], Path.cwd())]

    def is_installed(self) -> bool:
        return Path(peer("clearml-data")).exists()

    def begin(self, home: Home) -> Commands:
        host, key, secret = home.far.removeprefix("http://"), KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]
        login = f'{{host: "{host}", key: "{key}", secret: "{secret}", multipart: true, secure: false}}'
        self.settings(home).write_text(f"sdk.aws.s3.credentials: [{login if host else ''}]\n")
        return [Command(["mkdir", "-p", str(home.store)], home.root)]

    def identities(self, home: Home) -> dict[str, str]:
        """The id of each finished version, in the order in which they were made."""
        found = ask(home.service, "tasks.get_all", {"status": ["completed"]})["data"]["tasks"]
        return {one["runtime"]["version"]: one["id"] for one in found}

    def commit(self, home: Home, version: str) -> Commands:
        parents = [*self.identities(home).values()][-1:]
        words = ["--project", "p", "--name", "n", "--version", numbered(version), "--storage", self.storage(home)]
        words += ["--parents", *parents] if parents else []
        return [self.run(home, "sync", *words, "--folder", str(home.data))]

    def get(self, home: Home, version: str, *words: str) -> Commands:
        return [self.run(home, "get", "--id", self.identities(home)[numbered(version)], *words)]

    def diff(self, home: Home, old: str, new: str) -> Commands:
        found = self.identities(home)
        return [self.run(home, "compare", "--source", found[numbered(old)], "--target", found[numbered(new)])]

    def list(self, home: Home, version: str) -> Commands:
        return [self.run(home, "list", "--id", self.identities(home)[numbered(version)])]

    def verify(self, home: Home) -> Commands:
        return [self.run(home, "verify", "--id", [*self.identities(home).values()][-1])]
