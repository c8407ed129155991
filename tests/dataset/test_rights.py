"""What each right on a bucket is needed for, as the guide says: who has less makes and reads versions all the same."""

import secrets

import pytest
from fault_proxy import Answer
from versions import version_of

from dataset_store import Dataset
from dataset_store.cli import main
from dataset_store.errors import AccessDenied
from dataset_store.testing.folders import read, write

FILES = {"a.txt": b"one", "sub/b.txt": b"two" * 1_000}
RIGHTS = {
    "s3:ListBucket": lambda request: request.is_list,
    "s3:GetObject": lambda request: request.method in {"GET", "HEAD"} and not request.is_list,
    "s3:PutObject": lambda request: request.method == "PUT",
    "s3:DeleteObject": lambda request: request.method == "DELETE",
}


@pytest.fixture
def having(home, s3_bucket, s3_proxy, monkeypatch):
    """From here on the bucket refuses what needs another right than these; so it is told."""
    monkeypatch.setenv("DATASET_STORE_URL", f"{s3_bucket}/{secrets.token_hex(8)}")

    def having(*rights):
        def act(request):
            return None if any(RIGHTS[right](request) for right in rights) else Answer(403, "AccessDenied")

        s3_proxy.act = act

    return having


READING = ("s3:GetObject",)
WRITING = ("s3:GetObject", "s3:PutObject")
KEEPING = ("s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject")


def test_who_may_not_delete_makes_a_store_and_versions(home, having, another_machine):
    having(*WRITING)
    first = version_of(write(home / "in", FILES))
    second = version_of(write(home / "in", {"a.txt": b"changed"}), parent_datasets=[first])
    another_machine()
    assert read(Dataset.get(first.id).get_local_copy()) == FILES
    assert Dataset.get(dataset_project="p", dataset_name="d").id == second.id


def test_who_may_only_read_gets_copies_and_is_told_what_he_may_not(home, having, another_machine):
    having(*WRITING)
    made = version_of(write(home / "in", FILES))
    another_machine()
    having(*READING)
    assert read(Dataset.get(made.id).get_local_copy()) == FILES
    assert Dataset.get(dataset_project="p", dataset_name="d").verify_dataset_hash() == []
    with pytest.raises(AccessDenied, match="Cannot write"):
        version_of(write(home / "in", {"a.txt": b"changed"}), parent_datasets=[made])


def test_collecting_needs_to_list_and_to_delete(home, having, capsys):
    having(*WRITING)
    old = version_of(write(home / "in", FILES))
    version_of(write(home / "in", {"c": b"c" * 5_000}))
    Dataset.delete(old.id)
    having(*KEEPING)
    assert main(["gc", "--min-age", "0", "--apply"]) == 0
    having(*WRITING)
    assert main(["gc"]) == 1
    assert "403 AccessDenied" in capsys.readouterr().err
