"""What is kept and whether it is sound, from a shell: verify, stats, doctor."""

import io
import json
import os
import random
import subprocess
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from dataset_store import Dataset, __version__
from dataset_store.cli import main
from dataset_store.cli.output import size
from dataset_store.dataset import progress
from dataset_store.dataset.checks import asking
from dataset_store.errors import AccessDenied, StoreUnreachable
from dataset_store.storage.posix_backend import PosixBackend


def packs_of(machine: Path) -> list[Path]:
    return sorted(path for path in (machine / "url" / "packs").rglob("*") if path.is_file())


def flip(path: Path, at: int) -> None:
    """Change one byte of a file, whatever its mode."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.unlink()
    path.write_bytes(data)


# --- verify ------------------------------------------------------------------------------------------------------


def test_verify_reads_a_sound_version(shell, closed):
    checked = shell("verify", "--id", closed)
    assert checked.code == 0
    assert checked.out == "data/cats 1.0.0: 3 entries, 1.6 KiB, 1 pack read, all sound\n"


def test_verify_reads_every_kind_of_entry_and_files_of_many_chunks(shell, pictures):
    (pictures / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    (pictures / "zeros").write_bytes(bytes(3 << 20))
    (pictures / "empty").touch()
    (pictures / "nothing").mkdir()
    (pictures / "link").symlink_to("a.txt")
    shell("sync", "--folder", str(pictures), "--name", "cats")
    report = json.loads(shell("verify", "--json").out)
    assert (report["sound"], report["damaged"], report["entries"]) == (True, [], 8)


def test_verify_reads_the_packs_that_only_a_list_of_segments_names(shell, machine, pictures):
    parts = [random.Random(seed).randbytes(200_000) for seed in range(50)]
    (pictures / "large").write_bytes(b"".join(parts))
    first = shell("sync", "--folder", str(pictures), "--name", "cats").lines[-1].rpartition(" ")[2]
    (old,) = packs_of(machine)
    (pictures / "large").write_bytes(b"".join(part[:100_000] + b"!" + part[100_000:] for part in parts))
    (machine / "only").mkdir()
    os.rename(pictures / "large", machine / "only" / "large")
    shell("sync", "--folder", str(machine / "only"), "--parents", first)
    assert json.loads(shell("verify", "--json").out)["packs"] == 2
    old.unlink()
    damaged = json.loads(shell("verify", "--json").out)["damaged"]
    assert {row["path"] for row in damaged} == {"large", None}


def test_verify_names_exactly_the_files_that_a_damaged_chunk_belongs_to(shell, machine, pictures):
    (pictures / "large").write_bytes(random.Random(2).randbytes(2 << 20))
    version = shell("sync", "--folder", str(pictures), "--name", "cats").lines[-1].rpartition(" ")[2]
    (pack,) = packs_of(machine)
    flip(pack, pack.stat().st_size // 2)
    found = shell("verify", "--id", version, "--json")
    assert found.code == 5
    report = json.loads(found.out)
    assert [row["path"] for row in report["damaged"]] == ["large"]
    shown = shell("verify", "--id", version)
    assert shown.lines[0] == "damaged  large"
    assert "is damaged" in shown.err


def test_verify_of_a_lost_pack_names_what_needed_it(shell, machine, pictures, closed):
    (first,) = packs_of(machine)
    (pictures / "new").write_text("new")
    shell("sync", "--folder", str(pictures), "--parents", closed)
    first.unlink()
    found = shell("verify")
    assert found.code == 5
    assert {line.split()[1] for line in found.lines if line.startswith("damaged")} >= {"a.txt", "train/b.jpg"}
    assert "damaged  new" not in found.out


def test_verify_goes_on_where_the_root_of_the_tree_is_lost(shell, machine, closed):
    (pack,) = packs_of(machine)
    pack.unlink()
    found = shell("verify", "--id", closed)
    assert found.code == 5
    assert f"lost  the tree (3 entries)  There is no object 'packs/{pack.parent.name}/{pack.name}'" in found.out
    assert "0 entries, 0 B in 0 packs: 1 object damaged, 3 entries lost" in found.lines[-1]
    assert "Run verify" not in found.out + found.err
    report = json.loads(shell("verify", "--id", closed, "--json").out)
    (lost,) = report["lost"]
    assert lost.pop("problem").startswith("There is no object")
    assert lost == {"first": None, "before": None, "entries": 3, "bytes": 1605, "kind": "object-missing"}
    assert (report["sound"], report["entries"]) == (False, 0)


def test_verify_says_between_which_paths_entries_cannot_be_listed(shell, machine, pictures):
    for number in range(3_000):
        (pictures / f"{number:05}").write_bytes(b"%d" % number)
    first = shell("sync", "--folder", str(pictures), "--name", "cats").lines[-1].rpartition(" ")[2]
    (pack,) = packs_of(machine)
    (pictures / "01500").write_text("changed")
    second = shell("sync", "--folder", str(pictures), "--parents", first).lines[-1].rpartition(" ")[2]
    pack.unlink()
    found = shell("verify", "--id", second, "--json")
    report = json.loads(found.out)
    assert found.code == 5
    assert report["entries"] > 1
    assert report["entries"] + sum(part["entries"] for part in report["lost"]) == 3_003
    assert len(report["lost"]) > 1
    paths = [row["path"] for row in report["damaged"] if row["path"]]
    assert len(paths) == report["entries"] - 1  # all that could be listed but the file that was changed
    assert "01500" not in paths
    for part in report["lost"]:
        assert not any((part["first"] or "") <= path < (part["before"] or "~") for path in paths)
    begin, end = report["lost"][0], report["lost"][-1]
    assert (begin["first"], end["before"]) == (None, None)
    assert f"lost  up to before '{begin['before']}' ({begin['entries']} entries)" in shell("verify", "--id", second).out


def test_verify_tells_of_each_file_why_it_cannot_be_had(shell, machine, pictures, closed):
    (first,) = packs_of(machine)
    (pictures / "new").write_text("new")
    shell("sync", "--folder", str(pictures), "--parents", closed)
    whole = first.read_bytes()
    for damage, kind in (
        (first.unlink, "object-missing"),
        (lambda: first.write_bytes(whole[:40]), "corrupt-object"),
        (lambda: first.write_bytes(b""), "corrupt-object"),
    ):
        damage()
        found = shell("verify", "--json")
        assert found.code == 5
        damaged = json.loads(found.out)["damaged"]
        assert [row["path"] for row in damaged] == [None, "a.txt", "train/b.jpg", "train/c.png"]
        assert {row["kind"] for row in damaged} == {kind}
        assert all(first.name in row["problem"] for row in damaged)
        assert "3 entries damaged, 1 object damaged" in shell("verify").lines[-1]
        told = [line for line in shell("verify", "--verbose").lines if line.startswith("damaged  a.txt")]
        assert first.name in told[0]


def test_a_pack_that_cannot_be_read_is_damage_only_where_its_storage_answers(
    shell, machine, pictures, closed, monkeypatch
):
    (first,) = packs_of(machine)
    (pictures / "new").write_text("new")
    shell("sync", "--folder", str(pictures), "--parents", closed)
    ranges, many = PosixBackend.get_ranges, PosixBackend.get_many

    def refusing(self, parts):
        if any(first.name in part.key for part in parts):
            raise AccessDenied(f"Cannot read {first.name}.", "Ask for permission.")
        return ranges(self, parts)

    monkeypatch.setattr(PosixBackend, "get_ranges", refusing)
    found = shell("verify", "--json")
    assert found.code == 5
    damaged = json.loads(found.out)["damaged"]
    assert [row["path"] for row in damaged] == [None, "a.txt", "train/b.jpg", "train/c.png"]
    assert {row["kind"] for row in damaged} == {"unreadable"}

    def refusing_all(self, keys):
        if "config" in keys:
            raise AccessDenied("Cannot read anything.", "Ask for permission.")
        return many(self, keys)

    monkeypatch.setattr(PosixBackend, "get_many", refusing_all)
    refused = shell("verify")
    assert refused.code == 1
    assert first.name in refused.err
    assert "damaged" not in refused.out


def test_verify_asks_once_for_a_pack_that_is_not_there(shell, machine, pictures, monkeypatch):
    for number in range(2_000):
        (pictures / f"{number}").write_bytes(random.Random(number).randbytes(20_000))
    first = shell("sync", "--folder", str(pictures), "--name", "cats").lines[-1].rpartition(" ")[2]
    (pack,) = packs_of(machine)
    shell("sync", "--folder", str(pictures.parent), "--parents", first)
    pack.unlink()
    asked, ranges = [], PosixBackend.get_ranges

    def counting(self, parts):
        asked.extend(part for part in parts if pack.name in part.key)
        return ranges(self, parts)

    monkeypatch.setattr(PosixBackend, "get_ranges", counting)
    found = shell("verify", "--json")
    assert len(json.loads(found.out)["damaged"]) > 2_000
    # Several threads may each have begun a batch of some MiB, before the first of them knows.
    assert len(asked) < 100


def test_verify_passes_by_what_this_machine_remembers(shell, machine, closed):
    assert Path(shell("get", "--id", closed).out.strip()).is_dir()
    for pack in packs_of(machine):
        pack.unlink()
    assert shell("get", "--id", closed).code == 0
    assert shell("verify", "--id", closed).code == 5


def test_verify_compares_a_folder_by_content(shell, closed, pictures):
    assert shell("verify", "--id", closed, "--folder", str(pictures)).code == 0
    old = os.stat(pictures / "a.txt")
    (pictures / "a.txt").write_text("omega")
    os.utime(pictures / "a.txt", ns=(old.st_atime_ns, old.st_mtime_ns))
    (pictures / "train" / "b.jpg").unlink()
    (pictures / "new").touch()
    found = shell("verify", "--id", closed, "--folder", str(pictures))
    assert found.code == 1
    assert found.lines[:3] == ["missing  train/b.jpg", "modified  a.txt", "extra  new"]
    report = json.loads(shell("verify", "--id", closed, "--folder", str(pictures), "--json").out)
    assert (report["matches"], report["modified"]) == (False, ["a.txt"])


def test_verify_by_file_size_opens_no_file(shell, closed, pictures):
    (pictures / "a.txt").write_text("omega")
    assert shell("verify", "--id", closed, "--folder", str(pictures), "--filesize").code == 0
    (pictures / "a.txt").write_text("longer than before")
    assert shell("verify", "--id", closed, "--folder", str(pictures), "--filesize").code == 1


def test_a_copy_is_what_verify_compares_it_with(shell, pictures, machine):
    (pictures / "link").symlink_to("a.txt")
    (pictures / "nothing").mkdir()
    os.chmod(pictures / "a.txt", 0o755)
    shell("sync", "--folder", str(pictures), "--name", "cats")
    shell("get", "--copy", str(machine / "out"))
    for folder in (machine / "out", shell("get").out.strip()):
        assert shell("verify", "--folder", str(folder)).code == 0
        assert shell("verify", "--folder", str(folder), "--filesize").code == 0


def test_verify_of_a_draft_or_of_sizes_without_a_folder_is_refused(shell, closed):
    assert shell("verify", "--id", closed, "--filesize").code == 2
    shell("create", "--name", "dogs")
    assert shell("verify").code == 4


# --- verify: external links ------------------------------------------------------------------------------------------


@pytest.fixture
def far(machine, pictures, shell):
    """A folder whose files the version `links` of data/cats links to, besides one file of its own."""
    folder = machine / "far"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / name).write_text(name)
    shell("create", "--project", "data", "--name", "cats")
    shell("add", "--links", str(folder))
    shell("add", "--files", str(pictures / "a.txt"))
    shell("close")
    return folder


def test_verify_says_that_what_links_lead_to_was_not_read(shell, far):
    (far / "one").unlink()
    found = shell("verify")
    assert found.code == 0
    assert found.out == (
        "data/cats 1.0.0: 4 entries, 5 B, 1 pack read, all sound; what 3 external links lead to was not read\n"
    )
    assert json.loads(shell("verify", "--json").out)["links"] == {"count": 3, "asked": False, "broken": []}


def test_verify_asks_the_sources_of_links(shell, far):
    found = shell("verify", "--links")
    assert (found.code, found.out.partition("; ")[2]) == (0, "3 external links: as when linked\n")
    (far / "one").unlink()
    (far / "two").write_text("longer than before")
    found = shell("verify", "--links")
    assert found.code == 1
    assert found.lines[:2] == [f"missing  one  file://{far}/one", f"changed  two  file://{far}/two"]
    assert found.lines[2].endswith("all sound; 3 external links: 1 changed, 1 missing")
    assert "It has 18 bytes, and had 3." in shell("verify", "--links", "--verbose").out
    links = json.loads(shell("verify", "--links", "--json").out)["links"]
    assert (links["count"], links["asked"]) == (3, True)
    assert [(row["path"], row["state"]) for row in links["broken"]] == [("one", "missing"), ("two", "changed")]
    assert links["broken"][1]["url"] == f"file://{far}/two"


def test_a_link_of_the_same_size_has_changed_with_its_time(shell, far):
    os.utime(far / "one", ns=(10**18, 10**18))
    assert shell("verify", "--links").lines[0].startswith("changed  one")


def test_a_link_whose_hash_is_known_is_read_and_only_its_bytes_count(shell, machine, far):
    dataset = Dataset.create("hashed", "p")
    dataset.add_external_files(str(far), read_hash=True)
    dataset.finalize(auto_upload=True)
    before = os.stat(far / "two")
    (far / "two").write_text("TWO")
    os.utime(far / "two", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(far / "one", ns=(10**18, 10**18))
    (far / "three").write_text("three and more")
    found = shell("verify", "--id", dataset.id, "--links", "--verbose")
    assert [line.split()[:2] for line in found.lines[:-1]] == [["changed", "three"], ["changed", "two"]]
    assert "more than 5 bytes" in found.lines[0]
    assert "other bytes" in found.lines[1]


def test_a_source_that_does_not_answer_is_unreachable_and_the_others_are_asked(shell, far, monkeypatch):
    real = asking.describe_object

    def describing(url):
        if url.endswith("/one"):
            raise StoreUnreachable(f"Nobody answers at {url}.", "Repeat.")
        return real(url)

    monkeypatch.setattr(asking, "describe_object", describing)
    found = shell("verify", "--links")
    assert found.code == 1
    assert found.lines[0] == f"unreachable  one  file://{far}/one"
    assert found.lines[-1].endswith("3 external links: 1 unreachable")


def test_damage_of_a_links_record_is_corruption_whatever_its_source_says(shell, machine, far):
    (pack,) = packs_of(machine)
    flip(pack, 60)
    found = shell("verify", "--links", "--json")
    assert found.code == 5
    assert json.loads(found.out)["links"]["asked"] is True


def test_links_are_not_asked_of_a_folder(shell, far, pictures):
    assert shell("verify", "--links", "--folder", str(pictures)).code == 2


def test_verify_reads_files_and_bytes_of_how_many(shell, pictures, closed, monkeypatch):
    monkeypatch.setattr(progress, "_WAIT", 0.0)
    stream = Notebook()
    with redirect_stderr(stream):
        assert main(["verify", "--id", closed]) == 0
    assert "3/3 files" in stream.getvalue()
    assert "1.6/1.6 KiB" in stream.getvalue()


class Notebook(io.StringIO):
    """A stand-in for what ipykernel puts in the place of standard error."""


Notebook.__module__ = "ipykernel.iostream"


# --- stats -------------------------------------------------------------------------------------------------------


def test_stats_sums_what_the_store_keeps(shell, machine, closed, pictures):
    usage = json.loads(shell("stats", "--json").out)["usage"]
    assert usage["packs"] == {"count": 1, "bytes": sum(pack.stat().st_size for pack in packs_of(machine))}
    logs = [path.stat().st_size for path in (machine / "url" / "log").rglob("*") if path.is_file()]
    assert usage["log"] == {"count": 1, "bytes": sum(logs)}
    assert (usage["versions"], usage["logical_bytes"]) == (1, 1605)
    assert usage["stored_bytes"] == usage["packs"]["bytes"] + usage["log"]["bytes"]
    assert usage["deduplication"] == pytest.approx(1605 / usage["stored_bytes"])


def test_stats_tells_what_each_version_changed(shell, closed, pictures):
    (pictures / "a.txt").write_text("changed")
    shell("sync", "--folder", str(pictures), "--parents", closed)
    versions = json.loads(shell("stats", "--json").out)["versions"]
    assert [(row["entries"], row["added"], row["modified"]) for row in versions] == [(3, 3, 0), (3, 0, 1)]
    one = json.loads(shell("stats", "--id", closed, "--json").out)["versions"]
    assert [row["id"] for row in one] == [closed]
    assert closed in shell("stats", "--name", "cats", "--version", "1.0.0").out


def test_deep_stats_tell_what_each_version_alone_holds(shell, machine, closed, pictures):
    (pictures / "new.bin").write_bytes(os.urandom(200_000))
    (pictures / "text.txt").write_bytes(b"text that repeats\n" * 60_000)
    shell("sync", "--folder", str(pictures), "--parents", closed)
    document = json.loads(shell("stats", "--deep", "--json").out)
    first, second = document["versions"]
    assert first["own_bytes"] == 0  # its child has all of it
    assert 200_000 < second["own_bytes"] < 230_000
    assert second["own_bytes"] == second["stored_bytes"] - first["stored_bytes"]
    assert second["ranges_per_gib"] == pytest.approx(second["ranges"] / (second["bytes"] / 2**30))
    assert first["ranges_per_gib"] is None  # so few bytes would make it absurd
    assert 5 < document["usage"]["compression"] < 7
    shell("delete", "--id", first["id"], "--force")
    (left,) = json.loads(shell("stats", "--deep", "--json").out)["versions"]
    assert left["own_bytes"] == left["stored_bytes"]
    assert "ITS OWN" in shell("stats", "--deep").out


def test_deep_stats_of_a_small_version_have_no_rate(shell, closed):
    *_, row = shell("stats", "--deep").lines
    assert row.split()[-2:] == ["-", closed]


def test_the_help_of_stats_says_what_its_columns_are(shell):
    told = shell("stats", "--help").out
    for column in ("STORED", "ITS OWN", "RANGES", "PER GiB"):
        assert f"{column} " in told


@pytest.fixture
def elsewhere(shell, machine, pictures):
    """The folder of an output storage that holds the packs of the only version, of 200,000 bytes and more."""
    (pictures / "large").write_bytes(random.Random(3).randbytes(200_000))
    output = machine / "output"
    made = shell("sync", "--folder", str(pictures), "--name", "cats", "--storage", str(output))
    assert made.code == 0, made.err
    return output


def test_stats_count_the_packs_of_every_storage(shell, machine, pictures, elsewhere):
    usage = json.loads(shell("stats", "--json").out)["usage"]
    packs = [path.stat().st_size for path in elsewhere.rglob("*") if path.is_file()]
    assert usage["packs"] == {"count": 1, "bytes": sum(packs)}
    assert usage["storages"] == [
        {"number": 0, "url": f"file://{machine}/url", "packs": 0, "bytes": 0, "problem": None},
        {"number": 1, "url": f"file://{elsewhere}", "packs": 1, "bytes": sum(packs), "problem": None},
    ]
    assert 0.9 < usage["deduplication"] < 1
    shell("sync", "--folder", str(pictures / "train"), "--name", "dogs")
    told = shell("stats").out
    assert "\n  storage 0    " in told
    assert f"\n  storage 1    {size(sum(packs))} in 1  file://{elsewhere}\n" in told


def test_stats_say_which_storage_cannot_be_listed_and_give_no_ratio(shell, machine, elsewhere):
    elsewhere.rename(machine / "unmounted")
    answer = shell("stats")
    assert answer.code == 0
    assert "storage 1    cannot be listed: There is no folder at" in answer.out
    assert "that could be counted" in answer.out
    assert "deduplication  -" in answer.out
    usage = json.loads(shell("stats", "--json").out)["usage"]
    assert usage["deduplication"] is None
    assert usage["storages"][1]["problem"].startswith("There is no folder at")


def test_stats_of_one_storage_have_no_line_for_each(shell, closed):
    assert "storage 0" not in shell("stats").out


def test_deep_stats_leave_out_what_links_lead_to(shell, machine):
    (machine / "far").mkdir()
    (machine / "far" / "large").write_bytes(bytes(1 << 20))
    shell("create", "--name", "links")
    shell("add", "--links", str(machine / "far"))
    shell("close")
    assert json.loads(shell("stats", "--deep", "--json").out)["usage"]["deduplication"] == 0


def test_stats_of_a_store_without_versions(shell):
    shell("create", "--name", "cats")
    usage = json.loads(shell("stats", "--json").out)["usage"]
    assert (usage["versions"], usage["deduplication"]) == (0, None)
    assert "deduplication  -" in shell("stats").out


# --- doctor ------------------------------------------------------------------------------------------------------


def test_doctor_of_a_sound_installation(shell, machine, closed):
    shell("get", "--id", closed)
    answer = shell("doctor", "--json")
    found = json.loads(answer.out)
    assert answer.code == 0
    assert (found["version"], found["store"], found["reachable"]) == (__version__, str(machine / "url"), True)
    assert len(found["store_id"]) == 32
    assert (found["local_copies"], found["local_copy_bytes"], found["drafts"]) == (1, 1605, 0)
    assert found["chunking_kernel"] in {"c", "numpy"}
    assert (found["native_file"] is None) == (found["chunking_kernel"] == "numpy")
    assert {found["files_in_batches"], found["keys_in_batches"]} <= {"yes", "no"}
    assert all(line.startswith("ok  ") for line in shell("doctor").lines)


def test_doctor_says_where_there_is_no_store_yet(shell):
    answer = shell("doctor")
    assert answer.code == 0
    assert "no store yet" in answer.out


@pytest.mark.parametrize("content", [b"", b"no config of any store"])
def test_doctor_asks_the_store_itself_and_fails_where_it_is_not_sound(shell, machine, closed, content):
    config = machine / "url" / "config"
    config.unlink()
    config.write_bytes(content)
    answer = shell("doctor", "--json")
    assert answer.code == 1
    assert json.loads(answer.out)["sound"] is False


def test_doctor_tries_the_storage_of_a_store_that_is_named_and_leaves_the_store_as_it_was(shell, machine, closed):
    before = sorted(path for path in (machine / "url").rglob("*") if path.is_file())
    answer = shell("doctor", "--store", str(machine / "url"), "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["sound"]) == (0, True)
    assert found["create_race"] == {"sound": True, "text": "20 races of 16 threads had one winner each"}
    assert found["large_object"]["size_bytes"] == 64 << 20
    assert set(found["latency"]) == {"sound", "text", "create_ms", "create_worst_ms", "read_ms", "read_worst_ms"}
    assert sorted(path for path in (machine / "url").rglob("*") if path.is_file()) == before


def test_doctor_fails_where_the_storage_does_and_says_how(shell, machine, closed, monkeypatch):
    monkeypatch.setattr("dataset_store.storage.posix_backend.PosixBackend.list", lambda *_: iter(()))
    answer = shell("doctor", "--store", str(machine / "url"))
    assert answer.code == 1
    (line,) = [line for line in answer.lines if line.startswith("!!")]
    assert line.split(None, 4)[1:4] == ["list", "after", "write"]
    assert "0 of 10 objects" in line


def test_doctor_tries_nothing_where_the_store_is_not_named_or_not_there(shell, machine, closed):
    assert "create_race" not in json.loads(shell("doctor", "--json").out)
    nowhere = machine / "nowhere"
    answer = shell("doctor", "--store", str(nowhere), "--json")
    assert (answer.code, "create_race" in json.loads(answer.out), nowhere.exists()) == (0, False, False)


# --- config and completion -------------------------------------------------------------------------------------------


def test_config_tells_each_setting_and_where_it_comes_from(shell, machine, monkeypatch):
    found = json.loads(shell("config", "--json").out)["settings"]
    assert found["store"] == {"value": str(machine / "url"), "source": "DATASET_STORE_URL"}
    assert found["cache_bytes"]["source"] == "default"
    assert shell("config").lines[0].split() == ["SETTING", "VALUE", "FROM"]


def test_config_writes_and_takes_back_settings_and_keeps_the_others(shell, machine, monkeypatch):
    monkeypatch.delenv("DATASET_STORE_URL")
    assert shell("config", "--set", 'store=/a "b" \\c', "cache_bytes=1000", "single_writer=yes").code == 0
    document = json.loads(shell("config", "--json").out)
    assert document["settings"]["store"] == {"value": '/a "b" \\c', "source": document["file"]}
    assert document["settings"]["single_writer"]["value"] == "true"
    shell("config", "--unset", "store")
    again = json.loads(shell("config", "--json").out)["settings"]
    assert again["store"]["source"] == "default"
    assert again["cache_bytes"]["value"] == "1000"


@pytest.mark.parametrize("pair", ["nothing=1", "cache_bytes=many", "single_writer=perhaps", "store"])
def test_config_refuses_what_is_no_setting_and_writes_nothing(shell, pair):
    assert shell("config", "--set", pair).code == 2
    assert json.loads(shell("config", "--json").out)["settings"]["cache_bytes"]["source"] == "default"


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_flag(shell, kind):
    script = shell("completion", kind).out
    for word in ("create", "add", "diff", "config"):
        assert word in script
    assert "dataset-folder" in script


def test_bash_completes_commands_flags_and_files(shell, machine):
    (machine / "script").write_text(shell("completion", "bash").out)
    (machine / "work" / "some-file").touch()

    def completed(*words):
        line = " ".join(f"'{word}'" for word in words)
        program = (
            f"source {machine}/script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            'COMPREPLY=(); _dataset_store; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert completed("dataset-store", "cre") == ["create"]
    assert completed("dataset-store", "--store", "x", "sy") == ["sync"]
    assert "--dataset-folder" in completed("dataset-store", "add", "--data")
    assert completed("dataset-store", "add", "--files", "some") == ["some-file"]


def test_a_bound_of_no_bytes_is_one_and_the_file_is_the_users_alone(shell, machine):
    shell("config", "--set", "cache_bytes=0", "store=sftp://user:secret@host/x")
    document = json.loads(shell("config", "--json").out)
    assert document["settings"]["cache_bytes"]["value"] == "0"
    assert os.stat(document["file"]).st_mode & 0o077 == 0
    assert shell("config", "--set", "store=\udcff").code == 2
    assert os.listdir(os.path.dirname(document["file"])) == ["config.toml"]
