"""What this machine keeps is its user's alone, or is not used."""

import os
import stat
from pathlib import Path

import pytest

from dataset_store import Dataset, StorageManager
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import AccessDenied
from dataset_store.testing.folders import write

NOBODY = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")


def use(home: Path) -> Dataset:
    """A version made and copied, a file fetched: everything that this machine keeps is made."""
    made = Dataset.create(dataset_project="p", dataset_name="d")
    made.sync_folder(write(home / "files", {"a": b"a", "sub/b": b"b" * 200_000}))
    made.finalize(auto_upload=True)
    draft = Dataset.create(dataset_project="p", dataset_name="d")
    draft.add_files(home / "files" / "a", dataset_path="more")
    made.get_local_copy()
    StorageManager.get_local_copy(str(home / "files" / "a"))
    return made


@pytest.fixture(autouse=True)
def anew(home, monkeypatch):
    workspaces._open.clear()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_nobody_else_can_enter_what_is_made_whatever_the_umask(home, umask):
    previous = os.umask(umask)
    try:
        use(home)
    finally:
        os.umask(previous)
    for name in ("cache", "own"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_folders_that_were_there_are_left_as_they_are_and_what_is_made_in_them_is_closed(home, umask):
    for name in ("cache", "own"):
        (home / name).mkdir(mode=0o755)
        (home / name).chmod(0o755)
    previous = os.umask(umask)
    try:
        use(home)
    finally:
        os.umask(previous)
    for name in ("cache", "own"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o755
        inside = list((home / name).iterdir())
        assert inside
        assert {stat.S_IMODE(one.stat().st_mode) for one in inside} == {0o700}


@needs_root
def test_another_user_can_list_and_read_nothing_of_it(home):
    use(home)
    for folder in (home, *home.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(NOBODY)
    try:
        for name in ("cache", "own"):
            with pytest.raises(PermissionError):
                os.listdir(home / name)
    finally:
        os.seteuid(0)


def spoilt(folder: Path, how: str) -> None:
    folder.mkdir(exist_ok=True)
    if how == "owner":
        os.chown(folder, NOBODY, NOBODY)
    else:
        folder.chmod(int(how, 8))


WAYS = [pytest.param("owner", marks=needs_root), "770", "707", "1777"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", ["cache", "own"])
def test_a_folder_that_others_own_or_may_write_is_not_used(home, monkeypatch, name, how):
    made = use(home)
    workspaces._open.clear()
    spoilt(home / name, how)
    for act in (
        lambda: Dataset.get(made.id).get_local_copy(),
        lambda: Dataset.create(dataset_project="p", dataset_name="e"),
        lambda: StorageManager.get_local_copy(str(home / "files" / "a")),
    ):
        with pytest.raises(AccessDenied, match=name) as caught:
            act()
        assert "shared_folders" in caught.value.next_step
    monkeypatch.setenv("DATASET_STORE_SHARED_FOLDERS", "1")
    assert Path(Dataset.get(made.id).get_local_copy(), "a").read_bytes() == b"a"
    assert Path(StorageManager.get_local_copy(str(home / "files" / "a"))).read_bytes() == b"a"
