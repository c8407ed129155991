"""`StorageManager`: files by URL, cached by what their source tells of them, sent, listed; archives never leave."""

import inspect
import io
import os
import secrets
import stat
import tarfile
import time
import zipfile

import fsspec
import pytest
from http_server import http_server
from sftp_server import sftp_server
from sources import source_of

from dataset_store import StorageManager
from dataset_store.errors import (
    CorruptObject,
    DatasetStoreError,
    InvalidPath,
    InvalidRequest,
    PathNotFound,
    StoreUnreachable,
    UnsupportedFileType,
)
from dataset_store.local.archives import extract_archive
from dataset_store.testing.folders import read, write

FILES = {"one.txt": b"one", "sub/two.bin": os.urandom(100_000), "sub/deep/three.txt": b"three"}

CLEARML = {
    "get_local_copy": "remote_url, cache_context=None, extract_archive=True, name=None, force_download=False",
    "get_stream": "remote_url, chunk_size=None",
    "upload_file": "local_file, remote_url, wait_for_upload=True, retries=None",
    "set_cache_file_limit": "cache_file_limit, cache_context=None",
    "get_files_server": "",
    "upload_folder": "local_folder, remote_url, match_wildcard=None, retries=None",
    "download_file": "remote_url, local_folder=None, overwrite=False, skip_zero_size_check=False, silence_errors=False",
    "exists_file": "remote_url",
    "get_file_size_bytes": "remote_url, silence_errors=False",
    "download_folder": "remote_url, local_folder=None, match_wildcard=None, overwrite=False, "
    "skip_zero_size_check=False, silence_errors=False, max_workers=None",
    "list": "remote_url, return_full_path=False, with_metadata=False, read_hash=False",
    "get_metadata": "remote_url, return_full_path=False, read_hash=False",
    "set_report_upload_chunk_size": "chunk_size_mb",
    "set_report_download_chunk_size": "chunk_size_mb",
}


@pytest.mark.parametrize("method", CLEARML)
def test_arguments_stand_in_clearmls_order_with_its_defaults(method):
    parameters = inspect.signature(getattr(StorageManager, method)).parameters.values()
    shown = [each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in parameters]
    assert ", ".join(shown) == CLEARML[method]


@pytest.fixture(params=["memory", "s3", "sftp", "http"])
def remote(request, s3_bucket, home):
    """The URL of a folder that holds FILES, and a function that writes into it; http only serves."""
    with source_of(request.param, FILES, home, s3_bucket) as found:
        yield found


@pytest.fixture
def writable(remote):
    url, _ = remote
    if url.startswith("http"):
        pytest.skip("web servers take no files")
    return url


def content(path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# --- the cache -------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_for_each_state(remote, monkeypatch):
    url, put = remote
    fetched = []
    real = __import__("dataset_store.file_cache", fromlist=["x"]).read_object
    monkeypatch.setattr("dataset_store.file_cache.read_object", lambda *a: fetched.append(a[0]) or real(*a))
    first = StorageManager.get_local_copy(f"{url}/one.txt")
    assert isinstance(first, str)
    assert (os.path.basename(first), content(first)) == ("one.txt", b"one")
    assert StorageManager().get_local_copy(remote_url=f"{url}/one.txt") == first
    assert len(fetched) == 1
    time.sleep(1.1 if url.startswith("sftp") else 0.02)  # it tells whole seconds
    put("one.txt", b"two")
    second = StorageManager.get_local_copy(f"{url}/one.txt")
    assert (content(second), content(first)) == (b"two", b"one")
    assert len(fetched) == 2


def test_a_file_can_be_fetched_again_and_under_another_name(remote):
    url, _ = remote
    first = StorageManager.get_local_copy(f"{url}/one.txt", name="renamed.txt")
    assert os.path.basename(first) == "renamed.txt"
    again = StorageManager.get_local_copy(f"{url}/one.txt", name="renamed.txt", force_download=True)
    assert again != first
    assert content(again) == content(first) == b"one"
    other = StorageManager.get_local_copy(f"{url}/one.txt", cache_context="other")
    assert content(other) == b"one"


def test_what_is_cached_is_read_only_and_nothing_is_left_of_failures(remote, home):
    url, _ = remote
    path = StorageManager.get_local_copy(f"{url}/one.txt")
    assert not os.stat(path).st_mode & stat.S_IWUSR
    with pytest.raises(PathNotFound, match=r"none\.txt"):
        StorageManager.get_local_copy(f"{url}/none.txt")
    assert len([*(home / "cache" / "files").rglob("*.txt")]) == 1


def test_files_of_this_machine_are_handed_out_as_they_are(home):
    folder = write(home / "far", FILES)
    assert StorageManager.get_local_copy(str(folder / "one.txt")) == str(folder / "one.txt")
    assert StorageManager.get_local_copy(f"file://{folder}/one.txt") == str(folder / "one.txt")
    assert StorageManager.get_local_copy(str(folder)) == str(folder)
    with pytest.raises(PathNotFound):
        StorageManager.get_local_copy(str(folder / "none"))


def test_no_more_files_are_kept_than_the_limit_says_but_those_in_use(home, monkeypatch):
    url = f"memory://{secrets.token_hex(4)}"
    filesystem, root = fsspec.core.url_to_fs(url)
    for number in range(5):
        filesystem.pipe_file(f"{root}/{number}", b"%d" % number)
    paths = [StorageManager.get_local_copy(f"{url}/{number}", cache_context="few") for number in range(4)]
    assert StorageManager.set_cache_file_limit(2, "few") == 2
    assert all(map(os.path.exists, paths))  # this process was given them
    for copies in StorageManager._contexts.values():
        for lock in copies._held.values():
            os.close(lock)
        copies._held.clear()
    StorageManager.get_local_copy(f"{url}/4", cache_context="few")
    assert [os.path.exists(path) for path in paths] == [False, False, False, True]
    with pytest.raises(InvalidRequest):
        StorageManager.set_cache_file_limit(0)


def test_a_server_that_does_not_answer_is_an_error_and_not_an_absent_file(home):
    with http_server(home) as url:
        pass
    for call in (StorageManager.get_local_copy, StorageManager.exists_file, StorageManager.get_file_size_bytes):
        with pytest.raises(StoreUnreachable):
            call(f"{url}/one.txt")
    assert StorageManager.get_file_size_bytes(f"{url}/one.txt", silence_errors=True) is None
    assert StorageManager.download_file(f"{url}/one.txt", silence_errors=True) is None


def test_what_was_fetched_is_used_while_its_server_does_not_answer(home, caplog):
    write(home / "web", {"one.txt": b"one"})
    zipped(FILES, home / "web" / "a.zip")
    asked = [{"name": None}, {"name": "mine"}]
    with http_server(home / "web") as url:
        files = [StorageManager.get_local_copy(f"{url}/one.txt", **each) for each in asked]
        folders = [StorageManager.get_local_copy(f"{url}/a.zip", **each) for each in asked]
        write(home / "web", {"one.txt": b"another"})
        files[0] = StorageManager.get_local_copy(f"{url}/one.txt")
        with pytest.raises(PathNotFound):
            StorageManager.get_local_copy(f"{url}/none.txt")
    assert not caplog.records
    assert [StorageManager.get_local_copy(f"{url}/one.txt", **each) for each in asked] == files
    assert [StorageManager.get_local_copy(f"{url}/a.zip", **each) for each in asked] == folders
    assert [content(path) for path in files] == [b"another", b"one"]
    assert len([row for row in caplog.records if url in row.getMessage()]) == 4
    for other in ({"force_download": True}, {"cache_context": "other"}, {"name": "new"}):
        with pytest.raises(StoreUnreachable):
            StorageManager.get_local_copy(f"{url}/one.txt", **other)


def test_a_file_that_is_gone_is_not_taken_from_the_cache(home):
    write(home / "web", {"one.txt": b"one"})
    with http_server(home / "web") as url:
        StorageManager.get_local_copy(f"{url}/one.txt")
        (home / "web" / "one.txt").unlink()
        with pytest.raises(PathNotFound):
            StorageManager.get_local_copy(f"{url}/one.txt")


@pytest.mark.parametrize("name", ["..", "."])
def test_a_name_that_no_file_can_have_is_refused(home, name):
    archive = zipped(FILES, home / "a.zip")
    with pytest.raises(InvalidPath):
        StorageManager.get_local_copy(str(archive), name=name)


# --- sending, fetching, listing --------------------------------------------------------------------------------------


def test_a_file_is_sent_looked_at_and_streamed(writable, home):
    source = write(home / "mine", {"new.bin": b"n" * 10_000})
    target = f"{writable}/new.bin"
    assert not StorageManager.exists_file(target)
    assert StorageManager.upload_file(str(source / "new.bin"), target) == target
    assert StorageManager.exists_file(target)
    assert not StorageManager.exists_file(f"{writable}/sub")
    assert not StorageManager.exists_file(f"{writable}/sub/")
    assert StorageManager.get_file_size_bytes(target) == 10_000
    assert StorageManager.get_file_size_bytes(f"{writable}/none") is None
    pieces = list(StorageManager.get_stream(target, chunk_size=3_000))
    assert b"".join(pieces) == b"n" * 10_000
    assert max(map(len, pieces)) <= 3_000
    about = StorageManager.get_metadata(target, return_full_path=True)
    assert (about["name"], about["size"]) == (target, 10_000)
    assert StorageManager.get_metadata(f"{writable}/none") is None


def test_a_folder_is_sent_and_fetched_as_it_is_nested(writable, home):
    source = write(home / "mine", FILES | {"a b.txt": b"spaced"})
    target = f"{writable}/up"
    assert StorageManager.upload_folder(str(source), target) == target
    base = StorageManager.download_folder(target, str(home / "down"))
    assert base == str(home / "down")
    (one,) = (home / "down").rglob("one.txt")
    assert read(one.parent) == read(source)
    below = str(one.parent.relative_to(home / "down"))
    assert sorted(StorageManager.list(target)) == sorted(f"{below}/{name}" for name in read(source))
    full = StorageManager.list(target, return_full_path=True, with_metadata=True)
    assert {row["name"]: row["size"] for row in full}[f"{target}/sub/two.bin"] == 100_000
    StorageManager.upload_folder(str(source), f"{writable}/some", match_wildcard="*.txt")
    some = sorted(os.path.basename(name) for name in StorageManager.list(f"{writable}/some"))
    assert some == ["a b.txt", "one.txt", "three.txt"]
    StorageManager.upload_folder(str(source), f"{writable}/again", match_wildcard="**/*.txt")
    assert len(StorageManager.list(f"{writable}/again")) == 3
    StorageManager.download_folder(target, str(home / "few"), match_wildcard="*/two.bin")
    assert [path.name for path in (home / "few").rglob("*") if path.is_file()] == ["two.bin"]


def test_an_empty_folder_has_no_files_and_an_absent_one_is_an_error(home, caplog):
    (home / "empty").mkdir()
    assert StorageManager.list(f"file://{home}/empty") == StorageManager.list(str(home / "empty")) == []
    assert StorageManager.list(str(home / "empty"), return_full_path=True, with_metadata=True) == []
    assert StorageManager.download_folder(str(home / "empty"), str(home / "down")) == str(home / "down")
    assert os.listdir(home / "down") == []
    assert "Nothing was fetched" in caplog.text
    for call in (StorageManager.list, StorageManager.download_folder):
        with pytest.raises(PathNotFound):
            call(str(home / "none"))
    assert StorageManager.download_folder(str(home / "none"), silence_errors=True) is None


def test_a_prefix_without_objects_is_an_empty_list_and_an_absent_bucket_is_an_error(s3_bucket, home):
    assert StorageManager.list(f"{s3_bucket}/{secrets.token_hex(4)}") == []
    assert StorageManager.download_folder(f"{s3_bucket}/{secrets.token_hex(4)}/", str(home / "down"))
    with pytest.raises(PathNotFound):
        StorageManager.list(f"s3://no-such-bucket-{secrets.token_hex(4)}/x")


def test_an_empty_folder_behind_sftp_has_no_files_and_an_absent_one_is_an_error(home):
    (home / "served" / "empty").mkdir(parents=True)
    with sftp_server(home / "served") as url:
        assert StorageManager.list(f"{url}/empty") == []
        with pytest.raises(PathNotFound):
            StorageManager.list(f"{url}/none")


@pytest.mark.parametrize("as_url", [False, True], ids=["path", "URL"])
def test_the_metadata_of_a_file_of_this_machine_names_its_whole_path(home, as_url):
    path = str(write(home / "src", {"a/b": b"22"}) / "a" / "b")
    asked = f"file://{path}" if as_url else path
    assert StorageManager.get_metadata(asked)["name"] == path
    assert StorageManager.get_metadata(asked, return_full_path=True)["name"] == f"file://{path}"


def test_a_download_is_not_repeated_unless_it_is_asked_for(remote, home):
    url, put = remote
    path = StorageManager.download_file(f"{url}/one.txt", str(home / "down"))
    assert content(path) == b"one"
    put("one.txt", b"two")
    assert content(StorageManager.download_file(f"{url}/one.txt", str(home / "down"))) == b"one"
    assert content(StorageManager.download_file(f"{url}/one.txt", str(home / "down"), overwrite=True)) == b"two"
    assert [name for name in os.listdir(os.path.dirname(path)) if name.endswith(".part")] == []


def test_an_upload_in_the_background_is_done_before_the_process_ends(home, monkeypatch, caplog):
    source = write(home / "mine", {"one": b"1"})
    assert StorageManager.upload_file(str(source / "one"), f"{home}/out/one", wait_for_upload=False)
    monkeypatch.setattr("dataset_store.storage_manager._FIRST_PAUSE", 0.0)
    StorageManager.upload_file(str(source / "one"), "nope://host/one", wait_for_upload=False)
    StorageManager._background.shutdown()
    StorageManager._background = None
    assert content(home / "out" / "one") == b"1"
    assert "nope://host/one was not sent" in caplog.text


def test_a_failed_attempt_is_repeated(home, monkeypatch):
    from dataset_store import storage_manager
    from dataset_store.errors import StorageFailed

    source = write(home / "mine", {"one": b"1"})
    attempts = []
    real = storage_manager.write_object

    def failing(path, url):
        attempts.append(url)
        if len(attempts) < 3:
            raise StorageFailed("The line broke.")
        real(path, url)

    monkeypatch.setattr(storage_manager, "write_object", failing)
    monkeypatch.setattr(storage_manager, "_FIRST_PAUSE", 0.0)
    with pytest.raises(StorageFailed):
        StorageManager.upload_file(str(source / "one"), f"{home}/out", retries=1)
    StorageManager.upload_file(str(source / "one"), f"{home}/out")
    assert content(home / "out") == b"1"


@pytest.mark.parametrize("call", [StorageManager.upload_file, StorageManager.upload_folder])
def test_what_is_not_there_cannot_be_sent(home, call):
    with pytest.raises(PathNotFound):
        call(str(home / "none"), "memory://x")


# --- archives --------------------------------------------------------------------------------------------------------


def zipped(members, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(members, path):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "make"), [("a.zip", zipped), ("a.tar.gz", tarred), ("A.TGZ", tarred)])
def test_archives_are_extracted_once(home, name, make):
    (home / "web").mkdir()
    make(FILES, home / "web" / name)
    with http_server(home / "web") as url:
        folder = StorageManager.get_local_copy(f"{url}/{name}")
        assert read(folder) == FILES
        assert StorageManager.get_local_copy(f"{url}/{name}") == folder
        assert os.path.isfile(StorageManager.get_local_copy(f"{url}/{name}", extract_archive=False))
    assert read(StorageManager.get_local_copy(str(home / "web" / name))) == FILES


@pytest.mark.parametrize("remote", ["http"], indirect=True)
def test_what_is_an_archive_is_told_by_the_url_and_name_is_that_of_what_is_handed_out(remote, home):
    url, put = remote
    put("mnist.zip", content(zipped(FILES, home / "mnist.zip")))
    for name in ("MNIST", "a.txt", "a/b.zip"):
        folder = StorageManager.get_local_copy(f"{url}/mnist.zip", name=name)
        assert os.path.basename(folder) == name.replace("/", "_")
        assert read(folder) == FILES
        assert not os.stat(folder).st_mode & stat.S_IWUSR
    assert os.path.basename(StorageManager.get_local_copy(f"{url}/mnist.zip", name="M", extract_archive=False)) == "M"
    assert content(StorageManager.get_local_copy(f"{url}/one.txt", name="one.zip")) == b"one"


EVIL = ["../out", "/etc/out", "a/../../out", "a//b", "..", "a/./b"]


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", EVIL)
def test_no_member_leaves_the_folder(home, make, name):
    target = home / "in" / "folder"
    target.mkdir(parents=True)
    archive = make({"good": b"1", name: b"evil"}, str(home / ("a.zip" if make is zipped else "a.tgz")))
    with pytest.raises((InvalidPath, UnsupportedFileType)):
        extract_archive(archive, str(target))
    assert {path.name for path in (home / "in").rglob("*")} <= {"folder", "good"}


@pytest.mark.parametrize(("link", "fine"), [("good", True), ("../out", False), ("/etc/passwd", False)])
def test_links_lead_inside_or_are_refused(home, link, fine):
    (home / "folder").mkdir()
    with tarfile.open(home / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("good")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"1"))
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, link
        archive.addfile(info)
    if fine:
        extract_archive(str(home / "a.tgz"), str(home / "folder"))
        assert os.readlink(home / "folder" / "link") == "good"
    else:
        with pytest.raises(UnsupportedFileType):
            extract_archive(str(home / "a.tgz"), str(home / "folder"))


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.LNKTYPE])
def test_devices_and_hard_links_are_refused(home, kind):
    (home / "folder").mkdir()
    with tarfile.open(home / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "x"
        archive.addfile(info)
    with pytest.raises(UnsupportedFileType, match="odd"):
        extract_archive(str(home / "a.tgz"), str(home / "folder"))


def test_a_file_is_never_written_through_an_earlier_link(home):
    (home / "folder").mkdir()
    (home / "out").mkdir()
    with tarfile.open(home / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("d")
        info.type, info.linkname = tarfile.SYMTYPE, str(home / "out")
        archive.addfile(info)
        info = tarfile.TarInfo("d/evil")
        archive.addfile(info, io.BytesIO(b""))
    with pytest.raises(DatasetStoreError):
        extract_archive(str(home / "a.tgz"), str(home / "folder"))
    assert os.listdir(home / "out") == []


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_what_is_no_archive_is_one_error(home, name):
    (home / "folder").mkdir()
    (home / name).write_bytes(os.urandom(1_000))
    with pytest.raises(CorruptObject, match=name):
        extract_archive(str(home / name), str(home / "folder"))


def test_a_cut_archive_is_an_error_and_nothing_of_it_is_handed_out(home):
    whole = content(zipped(FILES, home / "whole.zip"))
    for size in range(0, len(whole), len(whole) // 20):
        (home / "cut.zip").write_bytes(whole[:size])
        with pytest.raises(CorruptObject):
            StorageManager.get_local_copy(str(home / "cut.zip"))


def test_modes_times_and_empty_directories_are_kept(home):
    (home / "folder").mkdir()
    with tarfile.open(home / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("./empty")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
        info = tarfile.TarInfo("./run")
        info.mode, info.mtime = 0o700, 1_500_000_000
        archive.addfile(info, io.BytesIO(b""))
    extract_archive(str(home / "a.tgz"), str(home / "folder"))
    assert (home / "folder" / "empty").is_dir()
    found = (home / "folder" / "run").stat()
    assert (bool(found.st_mode & stat.S_IXUSR), found.st_mtime) == (True, 1_500_000_000)


def test_a_damaged_tar_file_is_found_by_its_checksum(home):
    import gzip

    whole = bytearray(content(tarred({"f": b"\0" * 300_000}, home / "whole.tgz")))
    plain = bytearray(gzip.decompress(whole))
    at = plain.index(b"\0" * 1_000, 600)
    plain[at] = 1
    (home / "bad.tgz").write_bytes(gzip.compress(bytes(plain))[:-8] + whole[-8:])
    with pytest.raises(CorruptObject, match=r"bad\.tgz"):
        StorageManager.get_local_copy(str(home / "bad.tgz"))


def test_what_a_zip_says_twice_or_holds_damaged_is_one_error(home):
    (home / "folder").mkdir()
    with zipfile.ZipFile(home / "twice.zip", "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a/b", b"2")
    damaged = bytearray(content(zipped({"a": os.urandom(10_000)}, home / "damaged.zip")))
    damaged[5_000] ^= 1
    (home / "damaged.zip").write_bytes(damaged)
    for name in ("twice.zip", "damaged.zip"):
        with pytest.raises(CorruptObject, match=name):
            StorageManager.get_local_copy(str(home / name))


def test_a_header_of_a_tar_file_that_is_absurdly_long_is_not_read(home):
    import gzip

    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with gzip.open(home / "bomb.tgz", "wb") as file:
        file.write(long.tobuf(tarfile.GNU_FORMAT) + b"x" * 100_000)
    with pytest.raises(CorruptObject, match="too long"):
        StorageManager.get_local_copy(str(home / "bomb.tgz"))


def test_members_may_begin_with_a_dot(home):
    assert read(StorageManager.get_local_copy(str(zipped({"./f.txt": b"1", "./d/g": b"2"}, home / "a.zip")))) == {
        "f.txt": b"1",
        "d/g": b"2",
    }


# --- odd names and odd servers ---------------------------------------------------------------------------------------


def test_names_that_mean_something_in_urls_are_names_in_a_bucket(s3_bucket, home):
    url = f"{s3_bucket}/{secrets.token_hex(4)}"
    files = {name: f"content of {name}".encode() for name in ("a#1", "a#2", "a", "q?x", "a::b", "100%", "\u00fc")}
    source = write(home / "mine", files)
    StorageManager.upload_folder(str(source), url)
    below = url.removeprefix("s3://tests/")
    assert sorted(StorageManager.list(url)) == sorted(f"{below}/{name}" for name in files)
    down = StorageManager.download_folder(url, str(home / "down"))
    assert read(home / "down" / below) == files
    assert down == str(home / "down")
    for name, data in files.items():
        assert content(StorageManager.get_local_copy(f"{url}/{name}")) == data


def test_a_local_folder_keeps_its_nesting(home):
    source = write(home / "src", {"a/x.txt": b"AAA", "b/x.txt": b"BBB", "h#x": b"h"})
    assert read(StorageManager.download_folder(str(source), str(home / "down"))) == read(source)


def test_two_buckets_do_not_share_a_place_in_the_cache(s3_bucket):
    import s3fs

    s3fs.S3FileSystem().mkdir("others")
    for bucket in ("tests", "others"):
        s3fs.S3FileSystem().pipe_file(f"{bucket}/same/x.csv", bucket.encode())
    found = [content(StorageManager.download_file(f"s3://{bucket}/same/x.csv")) for bucket in ("tests", "others")]
    assert found == [b"tests", b"others"]
    s3fs.S3FileSystem().pipe_file("tests/same/x.csv", b"changed")
    assert content(StorageManager.download_file("s3://tests/same/x.csv")) == b"changed"


def test_a_web_address_gives_a_file_the_name_before_its_query(home):
    write(home / "web", {"my file.txt": b"1"})
    zipped({"f": b"2"}, home / "web" / "data.zip")
    with http_server(home / "web", ranges=False, lengths=False) as url:
        path = StorageManager.get_local_copy(f"{url}/my%20file.txt?X-Amz-Signature=TOPSECRET")
        assert os.path.basename(path) == "my file.txt"
        folder = StorageManager.get_local_copy(f"{url}/data.zip?X-Amz-Credential=A/B&X-Amz-Signature=TOPSECRET")
        assert read(folder) == {"f": b"2"}
    assert not [path for path in (home / "cache").rglob("*") if "SECRET" in path.name]


def test_a_first_download_can_be_forced(home):
    url = f"memory://{secrets.token_hex(4)}"
    fsspec.filesystem("memory").pipe_file(f"{url[8:]}/x", b"x")
    assert content(StorageManager.get_local_copy(f"{url}/x", force_download=True)) == b"x"


def test_the_default_server_is_told_without_its_password(monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", "sftp://user:hunter2@host/x")
    assert StorageManager.get_files_server() == "sftp://host/x"
