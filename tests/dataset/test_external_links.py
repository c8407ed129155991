"""External links: files that stay where they are, found, kept, fetched and checked."""

import hashlib
import os
import secrets
import time

import fsspec
import pytest
from blake3 import blake3
from http_server import http_server
from sources import source_of

from dataset_store import Dataset
from dataset_store.errors import (
    DriverMissing,
    ExternalFileChanged,
    InvalidRequest,
    PathNotFound,
    StoreUnreachable,
    VersionIsFinal,
)
from dataset_store.testing.folders import read, write

FILES = {"one.txt": b"one", "sub/two.bin": os.urandom(300_000), "sub/deep/three.txt": b"three" * 100, "empty": b""}


@pytest.fixture(params=["memory", "s3", "file", "http"])
def source(request, s3_bucket, home):
    """The URL of a folder that holds FILES, and a function that writes into it."""
    with source_of(request.param, FILES, home, s3_bucket) as found:
        yield found


@pytest.fixture
def far(home):
    """A folder of this machine that holds FILES."""
    return write(home / "far", FILES)


def linked(url, **options):
    dataset = Dataset.create("d", "p")
    dataset.add_external_files(url, **options)
    dataset.finalize(auto_upload=True)
    return dataset


def test_linked_files_are_fetched_with_a_local_copy(source, home, another_machine):
    url, _ = source
    dataset = Dataset.create("d", "p")
    urls = [f"{url}/{path}" for path in FILES]
    directories = [os.path.dirname(path) for path in FILES]
    assert dataset.add_external_files(urls, dataset_path=directories) == 4
    assert dataset.add_external_files(urls, dataset_path=directories) == 0
    assert dataset.tags == ["external files"]
    assert dataset.is_dirty()
    assert dataset.list_files() == sorted(FILES)
    dataset.finalize(auto_upload=True)
    another_machine()
    found = Dataset.get(dataset_project="p", dataset_name="d")
    assert found.file_entries == []
    entry = found.link_entries_dict["sub/two.bin"]
    assert (entry.link, entry.size, entry.hash) == (f"{url}/sub/two.bin", 300_000, None)
    assert entry.parent_dataset_id == found.id
    assert read(found.get_local_copy()) == FILES
    assert found.open("one.txt").read() == b"one"
    assert found.open("sub/deep/three.txt", "r").read() == "three" * 100
    assert found.verify_dataset_hash() == []
    assert not any(path.stat().st_size > 100_000 for path in (home / "store").rglob("*"))


def test_a_folder_is_linked_as_it_is_nested(source):
    url, _ = source
    if url.startswith("http"):
        pytest.skip("web servers list nothing")
    dataset = Dataset.create("d", "p")
    assert dataset.add_external_files(url, dataset_path="/in/") == 4
    assert dataset.list_files() == sorted(f"in/{path}" for path in FILES)
    other = Dataset.create("e", "p")
    assert other.add_external_files(f"{url}/", wildcard=["*.txt"]) == 2
    assert other.add_external_files(f"{url}/", recursive=False) == 1
    assert other.list_files() == ["empty", "one.txt", "sub/deep/three.txt"]


@pytest.mark.parametrize("read_hash", [False, True])
def test_a_file_that_changed_since_is_never_handed_out(source, another_machine, read_hash):
    url, put = source
    dataset = linked([f"{url}/one.txt", f"{url}/sub/two.bin"], read_hash=read_hash)
    time.sleep(0.02)  # some sources only know times
    put("one.txt", b"two")
    with pytest.raises(ExternalFileChanged, match=r"one\.txt"):
        dataset.get_local_copy()
    assert read(dataset.get_local_copy(files=["two.bin"])) == {"two.bin": FILES["sub/two.bin"]}
    with pytest.raises(ExternalFileChanged):
        dataset.open("one.txt")
    if read_hash:
        put("one.txt", b"one")  # brought back: only its content counts
        assert read(dataset.get_local_copy(files=["one.txt"])) == {"one.txt": b"one"}
        assert dataset.link_entries_dict["one.txt"].hash == blake3(b"one").hexdigest()


@pytest.mark.parametrize("content", [b"longer than it was", b"", b"2"])
def test_a_file_of_another_size_is_never_handed_out(source, content):
    url, put = source
    dataset = linked(f"{url}/one.txt")
    put("one.txt", content)
    with pytest.raises(ExternalFileChanged):
        dataset.get_local_copy()


def test_a_file_that_is_gone_is_named(far):
    dataset = linked(str(far / "one.txt"))
    (far / "one.txt").unlink()
    with pytest.raises(ExternalFileChanged, match="is gone"):
        dataset.get_local_copy()


def test_a_changed_file_is_a_change_of_the_next_version(source):
    url, put = source
    first = linked([f"{url}/one.txt", f"{url}/empty"])
    put("one.txt", b"ONE MORE")
    second = Dataset.create(parent_datasets=[first])
    assert second.add_external_files([f"{url}/one.txt", f"{url}/empty"]) == 0
    assert second.list_modified_files() == ["one.txt"]
    second.finalize(auto_upload=True)
    assert read(second.get_local_copy()) == {"one.txt": b"ONE MORE", "empty": b""}
    origins = {entry.relative_path: entry.parent_dataset_id for entry in second.link_entries}
    assert origins == {"one.txt": second.id, "empty": first.id}


def test_what_was_fetched_is_linked_into_the_next_copy_and_not_fetched_again(far, home):
    first = linked(str(far))
    old = first.get_local_copy()
    second = Dataset.create(parent_datasets=[first])
    second.add_files(write(home / "more", {"more": b"more"}))
    second.finalize(auto_upload=True)
    (far / "sub" / "two.bin").unlink()
    new = second.get_local_copy()
    assert read(new) == FILES | {"more": b"more"}
    assert os.stat(f"{old}/sub/two.bin").st_ino == os.stat(f"{new}/sub/two.bin").st_ino


@pytest.mark.parametrize("read_hash", [False, True])
def test_links_stay_links_through_a_mutable_copy(far, home, read_hash):
    first = linked(str(far), read_hash=read_hash)
    copy = first.get_mutable_local_copy(home / "mutable")
    write(home / "mutable", {"one.txt": b"one more", "new": b"new"})
    assert first.compare_folder(copy).modified == ("one.txt",)
    second = Dataset.create(parent_datasets=[first])
    assert second.sync_folder(copy) == (0, 1, 1)
    second.finalize(auto_upload=True)
    assert sorted(second.link_entries_dict) == ["empty", "sub/deep/three.txt", "sub/two.bin"]
    assert sorted(second.file_entries_dict) == ["new", "one.txt"]
    assert read(second.get_local_copy()) == read(home / "mutable")


def test_a_link_that_was_never_fetched_is_replaced_by_a_file_of_other_content(far, home):
    first = linked(str(far / "one.txt"))
    folder = write(home / "mine", {"one.txt": b"two"})  # as long, but not the same
    second = Dataset.create(parent_datasets=[first])
    assert second.sync_folder(folder) == (0, 0, 1)


@pytest.mark.parametrize("read_hash", [False, True])
def test_a_copy_of_links_is_verified_by_what_is_known(far, read_hash):
    dataset = linked(str(far), read_hash=read_hash)
    copy = dataset.get_local_copy()
    assert dataset.verify_dataset_hash(copy) == []
    assert dataset.verify_dataset_hash(copy, skip_hash=True) == []
    path = f"{copy}/one.txt"
    os.chmod(path, 0o644)
    with open(path, "wb") as file:
        file.write(b"ONE")
    assert dataset.verify_dataset_hash(copy) == ["one.txt"]


def test_links_and_files_take_each_others_place(far, home):
    dataset = Dataset.create("d", "p")
    dataset.add_files(write(home / "mine", {"one.txt": b"mine", "sub": b"a file"}))
    assert dataset.add_external_files(str(far)) == 3
    assert sorted(dataset.link_entries_dict) == ["empty", "one.txt", "sub/deep/three.txt", "sub/two.bin"]
    assert dataset.file_entries == []
    dataset.add_files(home / "mine" / "one.txt")
    dataset.finalize(auto_upload=True)
    assert read(dataset.get_local_copy()) == FILES | {"one.txt": b"mine"}


def test_links_are_removed_by_path_and_by_url(far):
    dataset = Dataset.create("d", "p")
    dataset.add_external_files(str(far))
    assert dataset.remove_files("sub/*") == 2
    assert dataset.remove_files(f"file://{far}/one*") == 1
    assert dataset.remove_files("s3://nothing/*") == 0
    assert dataset.list_files() == ["empty"]


def test_several_urls_need_one_directory_or_one_each(far):
    dataset = Dataset.create("d", "p")
    with pytest.raises(InvalidRequest):
        dataset.add_external_files([str(far), str(far), str(far)], dataset_path=["a", "b"])
    assert dataset.add_external_files([str(far / "one.txt"), str(far / "empty")], dataset_path="x") == 2
    assert dataset.list_files() == ["x/empty", "x/one.txt"]


def test_one_source_that_cannot_be_reached_leaves_nothing_added(far):
    dataset = Dataset.create("d", "p")
    with http_server(far) as url:
        gone = f"{url}/one.txt"
    for bad, kind in [
        (str(far / "none"), PathNotFound),
        (gone, StoreUnreachable),
        ("nope://host/x", InvalidRequest),
        ("gs://bucket/x", DriverMissing),
        ("https://host/x?X-Amz-Signature=abc", InvalidRequest),
        ("file://other-host/x", InvalidRequest),
    ]:
        with pytest.raises(kind):
            dataset.add_external_files([str(far / "one.txt"), bad])
    assert dataset.list_files() == []
    assert not dataset.is_dirty()


def test_a_final_version_takes_no_links(far):
    with pytest.raises(VersionIsFinal):
        linked(str(far)).add_external_files(str(far))


def test_a_web_address_is_found_by_its_query(home):
    write(home / "web", {"one.txt": b"one"})
    with http_server(home / "web") as url:
        dataset = linked(f"{url}/one.txt?version=3")
        assert dataset.link_entries[0].link == f"{url}/one.txt?version=3"


def test_names_that_urls_must_encode_are_found(home):
    files = {"a b.txt": b"1", "100%.txt": b"2", "ü#?.txt": b"3"}
    far = write(home / "far", files)
    assert read(linked(str(far)).get_local_copy()) == files


def test_links_made_in_two_stores_have_the_same_identity(far, home, monkeypatch):
    one = linked(str(far))
    root = one._final().entry.tree.digest
    monkeypatch.setenv("DATASET_STORE_URL", str(home / "another"))
    assert linked(str(far))._final().entry.tree.digest == root


def test_ten_thousand_links_are_one_commit_and_few_objects(home):
    write(home / "far", {f"{number % 100:02}/{number}.bin": b"%d" % number for number in range(10_000)})
    dataset = Dataset.create("d", "p")
    assert dataset.add_external_files(str(home / "far")) == 10_000
    dataset.finalize(auto_upload=True)
    assert len([path for path in (home / "store").rglob("*") if path.is_file()]) == 3  # config, a pack, an entry
    copy = dataset.get_local_copy(files=["07"])
    assert len(read(copy)) == 100
    assert len(read(dataset.get_local_copy())) == 10_000


def test_damage_of_a_record_is_found(far, home):
    dataset = linked(str(far))
    (pack,) = [path for path in (home / "store" / "packs").rglob("*") if path.is_file()]
    data = bytearray(pack.read_bytes())
    pack.chmod(0o644)
    data[60] ^= 1
    pack.write_bytes(data)
    from dataset_store.dataset.checks.verifying import verify_stored

    assert len(verify_stored(dataset._workspace, dataset.id).damaged) == 4


def test_content_ids_read_with_the_hash_are_those_of_the_files(far):
    dataset = linked(str(far), read_hash=True)
    assert {entry.relative_path: entry.hash for entry in dataset.link_entries} == {
        path: blake3(data).hexdigest() for path, data in FILES.items()
    }
    assert hashlib.sha256(dataset.open("sub/two.bin").read()).digest() == hashlib.sha256(FILES["sub/two.bin"]).digest()


# --- files kept as they are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["store", "folder", "s3"])
def test_an_upload_as_links_keeps_the_files_readable_where_they_lie(home, where, s3_bucket, another_machine):
    folder = write(home / "in", FILES)
    os.symlink("one.txt", folder / "link")
    output = {"store": None, "folder": f"{home}/out", "s3": f"{s3_bucket}/{secrets.token_hex(4)}"}[where]
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(folder)
    dataset.upload(output_url=output, upload_as_external_links=True)
    dataset.finalize()
    for entry in dataset.link_entries:
        with fsspec.open(entry.link.replace("%20", " "), "rb") as file:
            content = file.read()
        assert (content, entry.hash) == (FILES[entry.relative_path], blake3(content).hexdigest())
    assert sorted(dataset.link_entries_dict) == ["one.txt", "sub/deep/three.txt", "sub/two.bin"]
    another_machine()
    assert read(Dataset.get(dataset.id).get_local_copy()) == read(folder)
    again = Dataset.create(parent_datasets=[dataset])
    assert again.sync_folder(folder) == (0, 0, 0)


def test_an_upload_as_links_of_a_changed_file_is_refused_and_can_be_repeated(home):
    from dataset_store.errors import FileChanged

    folder = write(home / "in", FILES)
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(folder)
    (folder / "one.txt").write_bytes(b"ONE")
    with pytest.raises(FileChanged, match=r"one\.txt"):
        dataset.upload(upload_as_external_links=True)
    assert dataset.link_entries == []
    dataset.sync_folder(folder)
    dataset.upload(upload_as_external_links=True)
    dataset.finalize()
    assert read(dataset.get_local_copy()) == read(folder)


def test_deleting_external_files_spares_what_another_version_links_to(far, home):
    first = linked([str(far / "one.txt"), str(far / "sub" / "two.bin")])
    second = linked([str(far / "one.txt")])
    Dataset.delete(first.id, delete_external_files=True)
    assert sorted(read(far)) == ["empty", "one.txt", "sub/deep/three.txt"]
    assert read(second.get_local_copy()) == {"one.txt": b"one"}
    Dataset.delete(second.id)
    assert (far / "one.txt").exists()


def test_an_object_that_changed_on_its_way_does_not_stand_for_what_it_should_have_been(home, monkeypatch):
    from dataset_store.dataset.drafts import externals
    from dataset_store.errors import FileChanged

    folder = write(home / "in", {"f": b"right"})
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(folder)
    real = externals.write_object

    def swapped(path, url):
        (folder / "f").write_bytes(b"wrong")
        real(path, url)

    monkeypatch.setattr(externals, "write_object", swapped)
    with pytest.raises(FileChanged):
        dataset.upload(upload_as_external_links=True)
    monkeypatch.setattr(externals, "write_object", real)
    os.unlink(folder / "f")
    write(home / "in", {"f": b"right"})
    dataset.sync_folder(folder)
    dataset.upload(upload_as_external_links=True)
    dataset.finalize()
    assert read(dataset.get_local_copy()) == {"f": b"right"}


def test_an_executable_file_stays_one_in_an_upload_as_links(home):
    folder = write(home / "in", {"run": b"#!", "data": b"d"})
    (folder / "run").chmod(0o755)
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(folder)
    dataset.upload(upload_as_external_links=True)
    dataset.finalize()
    assert sorted(dataset.link_entries_dict) == ["data"]
    assert os.access(f"{dataset.get_local_copy()}/run", os.X_OK)


def test_files_that_a_draft_began_with_are_spared_when_its_parent_is_deleted(home):
    dataset = Dataset.create("d", "p")
    dataset.add_files(write(home / "in", {"f": b"f"}))
    dataset.upload(upload_as_external_links=True)
    dataset.finalize()
    child = Dataset.create(parent_datasets=[dataset])
    Dataset.delete(dataset.id, delete_external_files=True)
    child.finalize()
    assert read(child.get_local_copy()) == {"f": b"f"}


# --- odd names and odd sources ---------------------------------------------------------------------------------------

ODD = ["a#1.txt", "a#2.txt", "a", "q?x.txt", "q", "a::b.txt", "100%.txt", "a b.txt", "x@y", "\u00fc"]


def test_names_that_mean_something_in_urls_are_names_in_a_bucket(s3_bucket, home):
    url = f"{s3_bucket}/{secrets.token_hex(4)}"
    filesystem, root = fsspec.core.url_to_fs(url)
    files = {name: f"content of {name}".encode() for name in ODD}
    for name, data in files.items():
        filesystem.pipe_file(f"{root}/{name}", data)
    filesystem.pipe_file(f"{root}/folder/", b"")  # as consoles make for a folder
    dataset = linked(url)
    assert read(dataset.get_local_copy()) == files
    one = linked(f"{url}/a#1.txt")
    Dataset.delete(dataset.id)
    Dataset.delete(one.id, delete_external_files=True)
    left = {path.rpartition("/")[2] for path in filesystem.find(root, refresh=True)}
    assert left - {""} == {*ODD} - {"a#1.txt"}


def test_one_bucket_by_two_schemes_is_one_place(s3_bucket):
    path = secrets.token_hex(4)
    filesystem, root = fsspec.core.url_to_fs(f"{s3_bucket}/{path}")
    filesystem.pipe_file(f"{root}/f", b"f")
    first, second = linked(f"{s3_bucket}/{path}/f"), linked(f"{s3_bucket.replace('s3:', 's3a:')}/{path}/f")
    Dataset.delete(first.id, delete_external_files=True)
    assert read(second.get_local_copy()) == {"f": b"f"}


def test_names_on_this_machine_need_not_be_text(home):
    folder = os.fsencode(home / "far")
    os.makedirs(folder)
    for name in (b"\xff\xfe", b"h#x", b"h"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(name)
    dataset = linked(str(home / "far"))
    copy = os.fsencode(dataset.get_local_copy())
    for name in (b"\xff\xfe", b"h#x", b"h"):
        with open(os.path.join(copy, name), "rb") as file:
            assert file.read() == name


def test_a_link_in_a_linked_folder_is_the_file_it_leads_to(home):
    far = write(home / "far", {"a": b"1"})
    write(home / "real", {"real.txt": b"2"})
    os.symlink(home / "real" / "real.txt", far / "l")
    assert read(linked(str(far)).get_local_copy()) == {"a": b"1", "l": b"2"}


@pytest.mark.parametrize("options", [{"etags": False}, {"lengths": False}, {"etags": False, "lengths": False}])
def test_where_a_server_tells_too_little_the_file_is_hashed_when_it_is_linked(home, options):
    folder = write(home / "web", {"f.csv": b"AAAA"})
    with http_server(folder, ranges=False, **options) as url:
        dataset = linked(f"{url}/f.csv?file=a/b")
        assert dataset.link_entries_dict["f.csv"].hash == blake3(b"AAAA").hexdigest()
        assert dataset.link_entries_dict["f.csv"].size == 4
        assert read(dataset.get_local_copy()) == {"f.csv": b"AAAA"}
        child = Dataset.create(parent_datasets=[dataset])
        child.finalize()
        (folder / "f.csv").write_bytes(b"BBBB")
        with pytest.raises(ExternalFileChanged):
            child.open("f.csv")


@pytest.mark.parametrize("uploaded", [False, True])
def test_a_link_whose_content_is_known_is_compared_by_it_also_before_the_upload(far, home, uploaded):
    dataset = Dataset.create("d", "p")
    dataset.add_external_files(str(far / "one.txt"), read_hash=True)
    if uploaded:
        dataset.upload()
    other = write(home / "mine", {"one.txt": b"two"})
    os.utime(other / "one.txt", ns=(0, (far / "one.txt").stat().st_mtime_ns))
    assert dataset.compare_folder(other).modified == ("one.txt",)
    assert dataset.sync_folder(other) == (0, 0, 1)


def test_a_record_is_never_taken_for_the_file_it_leads_to(far, home, monkeypatch):
    dataset = linked(str(far), read_hash=True)
    index = dataset._workspace.chunks
    ids = [bytes.fromhex(entry.hash) for entry in dataset.link_entries]
    assert index.find_contents(ids) == [None] * len(ids)


def test_a_signed_url_is_refused_however_it_is_written(home):
    dataset = Dataset.create("d", "p")
    for name in ("X-Amz-Signature", "x-amz-security-token", "SIG", "Policy", "apikey", "access_token"):
        with pytest.raises(InvalidRequest, match="signed") as error:
            dataset.add_external_files(f"https://host/x?{name}=hunter2")
        assert "hunter2" not in str(error.value)


def test_no_password_stands_in_what_is_logged_of_an_error(home):
    import traceback

    secret = secrets.token_hex(4)
    dataset = Dataset.create("d", "p")
    with http_server(home) as url:
        pass
    try:
        dataset.add_external_files(url.replace("://", f"://user:{secret}@") + "/f")
    except StoreUnreachable as error:
        assert secret not in "".join(traceback.format_exception(error))
    else:
        pytest.fail("it was reached")


def test_a_linked_folder_that_did_not_change_is_no_change_when_it_is_synced(home):
    folder = write(home / "linked", {"x": b"x" * 1_000, "d/y": b"y"})
    os.utime(folder / "x", ns=(1_700_000_000_863_311_255, 1_700_000_000_863_311_255))
    dataset = Dataset.create("d", "p")
    dataset.add_external_files(str(folder))
    assert dataset.compare_folder(folder).matches
    assert dataset.sync_folder(folder) == (0, 0, 0)
    assert len(dataset.link_entries) == 2
    write(folder, {"x": b"z" * 1_000})
    assert dataset.sync_folder(folder) == (0, 0, 1)
    assert [one.relative_path for one in dataset.link_entries] == ["d/y"]
