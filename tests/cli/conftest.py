"""One machine and one store for each test, and a way to give commands to it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dataset_store.cli import main


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Shell = Callable[..., Answer]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own, whose working folder is `work` below the path returned."""
    for name in ("URL", "CACHE", "DATA"):
        monkeypatch.setenv(f"DATASET_STORE_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def shell(machine: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs one command in this process."""

    def run(*words: str) -> Answer:
        capsys.readouterr()
        code = main(list(words))
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def pictures(machine: Path) -> Path:
    """A folder of three files in the working folder."""
    folder = machine / "work" / "pictures"
    (folder / "train").mkdir(parents=True)
    (folder / "a.txt").write_text("alpha")
    (folder / "train" / "b.jpg").write_bytes(b"b" * 1500)
    (folder / "train" / "c.png").write_bytes(b"c" * 100)
    return folder


@pytest.fixture
def closed(shell: Shell, pictures: Path) -> str:
    """The id of a final version `data/cats` of these files; no folder is about it."""
    made = shell("sync", "--folder", str(pictures), "--project", "data", "--name", "cats")
    assert made.code == 0, made.err
    return made.lines[-1].rpartition(" ")[2]
