"""Histories kept by other means: folders one after another, and what a DVC repository tracks."""

import hashlib
import json
import os
import subprocess

import pytest

from dataset_store import Dataset
from dataset_store.cli import main
from dataset_store.dataset.importing import dvc_history, folder_history, import_history, steps_taken
from dataset_store.errors import CorruptObject, InvalidPath, InvalidRequest, NotFound, PathNotFound
from dataset_store.testing.folders import read, write


class DvcRepository:
    """A git repository with what `dvc add` (version 3, or 2) leaves in it."""

    def __init__(self, root, version=3):
        self.root = root
        self.version = version
        (root / ".dvc").mkdir(parents=True)
        (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
        self.git("init", "-q")

    def git(self, *words):
        said = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *said, *words], cwd=self.root, check=True, capture_output=True)

    def keep(self, data: bytes, end: str = "") -> str:
        md5 = hashlib.md5(data).hexdigest() + end
        cache = self.root / ".dvc" / "cache" / ("files/md5" if self.version == 3 else "")
        write(cache, {f"{md5[:2]}/{md5[2:]}": data})
        return md5

    def commit(self, subject, files, *tags, name="data"):
        if isinstance(files, bytes):
            md5 = self.keep(files)
        else:
            rows = [{"md5": self.keep(data), "relpath": path} for path, data in sorted(files.items())]
            md5 = self.keep(json.dumps(rows).encode(), ".dir")
        kind = "  hash: md5\n" if self.version == 3 else ""
        write(self.root, {f"{name}.dvc": f"outs:\n- md5: {md5}\n  size: 1\n{kind}  path: {name}\n".encode()})
        self.git("add", "-A", f"{name}.dvc")
        self.git("commit", "-qm", subject, "--allow-empty")
        for tag in tags:
            self.git("tag", tag)


FIRST = {"a.txt": b"one\n", "sub/b.bin": os.urandom(50_000)}
SECOND = FIRST | {"a.txt": b"two\n"}
THIRD = {"sub/c.bin": FIRST["sub/b.bin"]}


@pytest.fixture(params=[3, 2])
def repository(home, request):
    made = DvcRepository(home / "repo", request.param)
    made.commit("first", FIRST, "v1")
    made.commit("second, with ünicode", SECOND)
    (home / "repo" / "unrelated").write_text("x")
    made.git("add", "unrelated")
    made.git("commit", "-qm", "unrelated")
    made.commit("third", THIRD, "v3", "latest")
    return made


def versions(project="p", name="d"):
    rows = Dataset.list_datasets(project, f"^{name}$")
    return [Dataset.get(row["id"]) for row in reversed(rows)]


def test_a_dvc_history_becomes_versions_with_tags_and_descriptions(home, repository):
    made = import_history(dvc_history(str(home / "repo"), "data"), "p", "d")
    found = versions()
    assert [one.id for one in found] == made
    assert [read(one.get_local_copy()) for one in found] == [FIRST, SECOND, THIRD]
    assert [one.tags for one in found] == [["v1"], [], ["latest", "v3"]]
    assert found[1].description.startswith("second, with ünicode (")
    assert found[2].diff().renamed == [("sub/b.bin", "sub/c.bin")]
    assert [row.id for row in found[2].log()] == made[::-1]
    status = subprocess.run(["git", "status", "--short"], cwd=home / "repo", capture_output=True, text=True)
    assert "dataset-store" not in status.stdout
    assert not list((home / "repo").rglob("dataset-store-*"))


def test_a_history_that_went_on_is_gone_on_with(home, repository):
    for _ in range(2):
        import_history(dvc_history(str(home / "repo"), "data.dvc", steps_taken("p", "d")), "p", "d")
    assert len(versions()) == 3
    repository.commit("fourth", FIRST)
    made = import_history(dvc_history(str(home / "repo"), "data", steps_taken("p", "d")), "p", "d")
    assert [one.id for one in versions()][3:] == made
    assert read(versions()[3].get_local_copy()) == FIRST


def test_what_was_not_changed_is_not_read_again(home, repository, monkeypatch):
    from dataset_store.local import folder

    opened = []
    real = folder.hash_files
    monkeypatch.setattr(folder, "hash_files", lambda paths, *a, **o: opened.extend(paths) or real(paths, *a, **o))
    import_history(dvc_history(str(home / "repo"), "data"), "p", "d")
    assert sum(b"b.bin" in os.fsencode(path) for path in opened) <= 2  # just linked, then settled


def test_a_single_file_is_a_dataset_of_one(home):
    repository = DvcRepository(home / "repo")
    repository.commit("one", b"content", name="model.bin")
    import_history(dvc_history(str(home / "repo"), "model.bin"), "", "m")
    assert read(Dataset.get(dataset_name="m").get_local_copy()) == {"model.bin": b"content"}


def test_a_commit_that_removed_it_is_passed_over(home, repository):
    repository.git("rm", "-q", "data.dvc")
    repository.git("commit", "-qm", "removed")
    repository.commit("back", FIRST)
    assert len(import_history(dvc_history(str(home / "repo"), "data"), "p", "d")) == 4


def test_a_cache_elsewhere_is_found_by_the_configuration(home, repository):
    (home / "repo" / ".dvc" / "cache").rename(home / "elsewhere")
    (home / "repo" / ".dvc" / "config.local").write_text("[cache]\n    dir = ../../elsewhere\n")
    assert len(import_history(dvc_history(str(home / "repo"), "data"), "p", "d")) == 3


def test_an_object_that_is_not_in_the_cache_is_named_and_what_was_taken_stays(home, repository):
    md5 = hashlib.md5(SECOND["a.txt"]).hexdigest()
    (path,) = (home / "repo" / ".dvc" / "cache").rglob(md5[2:])
    path.unlink()
    with pytest.raises(PathNotFound, match=md5):
        import_history(dvc_history(str(home / "repo"), "data"), "p", "d")
    assert len(versions()) == 1


def test_an_object_that_is_not_what_its_name_says_is_refused(home):
    repository = DvcRepository(home / "repo")
    repository.commit("first", FIRST)
    md5 = hashlib.md5(FIRST["a.txt"]).hexdigest()
    (path,) = (home / "repo" / ".dvc" / "cache").rglob(md5[2:])
    path.write_bytes(b"bad\n")
    with pytest.raises(CorruptObject, match=md5[2:]):
        import_history(dvc_history(str(home / "repo"), "data"), "p", "d")
    with pytest.raises(NotFound):
        Dataset.get(dataset_project="p", dataset_name="d")


@pytest.mark.parametrize("path", ["../out", "/etc/out", "a/../../out"])
def test_no_listing_leads_out_of_the_folder(home, path):
    repository = DvcRepository(home / "repo")
    repository.commit("evil", {path: b"evil"})
    with pytest.raises(InvalidPath):
        import_history(dvc_history(str(home / "repo"), "data"), "p", "d")
    assert not list(home.rglob("out"))


def test_what_is_no_history_is_refused(home, repository):
    with pytest.raises(PathNotFound):
        dvc_history(str(home), "data")
    with pytest.raises(PathNotFound, match="nothing"):
        dvc_history(str(home / "repo"), "nothing")
    (home / "repo" / "odd.dvc").write_text("outs:\n- etag: abc\n  path: odd\n")
    repository.git("add", "odd.dvc")
    repository.git("commit", "-qm", "odd")
    with pytest.raises(InvalidRequest, match=r"odd\.dvc"):
        list(dvc_history(str(home / "repo"), "odd"))


def test_folders_become_versions_in_the_order_given(home):
    folders = [str(write(home / name, files)) for name, files in [("jan", FIRST), ("feb", FIRST), ("mar", THIRD)]]
    import_history(folder_history(folders), "p", "d")
    assert [one.tags for one in versions()] == [["jan"], ["mar"]]  # february changed nothing
    folders.append(str(write(home / "apr", SECOND)))
    import_history(folder_history(folders, steps_taken("p", "d")), "p", "d")
    assert [one.tags for one in versions()] == [["jan"], ["mar"], ["apr"]]
    with pytest.raises(PathNotFound, match="none"):
        folder_history([str(home / "jan"), str(home / "none")])


def test_the_command_tells_each_version_and_can_be_repeated(home, repository, capsys):
    words = ["import", "--dvc", str(home / "repo"), "--target", "data", "--project", "p", "--name", "d"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "3 versions made"
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"versions": []}
    assert main(["import", "--name", "d"]) == 2
    assert main(["import", "--name", "d", "--dvc", "x"]) == 2
    assert main(["import", "--name", "d", "--folders", str(home / "none")]) == 3
