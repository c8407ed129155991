"""A store that was written once must stay readable, for ever, by whoever has the page that describes the format.

`store-1/store`, `store-2/store` and `store-3/store` are such stores, and `expected.json` beside each says what it
holds. They are read here by a reader that was written from `docs/format.md` alone. What can be seen of the first is
tried on it; the second holds what the first does not: external links, metadata, an output storage, checkpoints; the
third what upkeep leaves: packs that were condemned, repacked, lost, and repaired in part.
"""

import contextlib
import importlib.util
import json
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import blake3
import pyarrow
import pyarrow.ipc
import pytest
import zstandard

HERE = Path(__file__).parent
STORE = HERE / "store-1" / "store"
EXPECTED = json.loads((HERE / "store-1" / "expected.json").read_bytes())
SECOND = HERE / "store-2"
EXPECTED_SECOND = json.loads((SECOND / "expected.json").read_bytes())
THIRD = HERE / "store-3"
EXPECTED_THIRD = json.loads((THIRD / "expected.json").read_bytes())
ELSEWHERE = "file:///golden/elsewhere"
FLIPS = 300


def load_sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


reader = load_sibling("independent_reader")


def key_of(path: bytes) -> bytes:
    return path.replace(b"/", b"\0")


def expected_rows() -> dict[str, list[list[Any]]]:
    """The rows of every version in the order of its tree; some are told as what differs from another version."""
    rows: dict[str, dict[bytes, list[Any]]] = {}
    for version in EXPECTED:
        held = dict(rows[version["on_top_of"]]) if "on_top_of" in version else {}
        for path in version.get("removed", []):
            del held[bytes.fromhex(path)]
        held.update({bytes.fromhex(row[0]): row for row in version["entries"]})
        rows[version["id"]] = held
    return {version: [held[path] for path in sorted(held, key=key_of)] for version, held in rows.items()}


ROWS = expected_rows()


def rows_of(version: Any) -> list[list[Any]]:
    return [[path.hex(), *rest] for path, *rest in version.entries()]


def described(store: Any) -> list[dict[str, Any]]:
    """What a store says of its versions, in the words of expected.json."""
    words = ("id", "project", "name", "version", "tags", "parents", "digest")
    return [{word: getattr(version, word) for word in words} for version in store.versions]


def expected_descriptions(versions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    words = ("id", "project", "name", "version", "tags", "parents", "digest")
    return [{word: version[word] for word in words} for version in versions]


EXPECTED_DESCRIPTIONS = expected_descriptions(EXPECTED)


def read_second(folder: Path = SECOND) -> Any:
    return reader.read_store(folder / "store", {ELSEWHERE: folder / "elsewhere"})


def what_second_holds(store: Any) -> list[Any]:
    """Everything of the second store, as its expected.json tells it; every content is read."""
    held = []
    for version, described_as in zip(store.versions, described(store), strict=True):
        rows = rows_of(version)
        for path, _, _, content_id, *_ in [row for row in rows if row[1] == "file"]:
            assert blake3.blake3(version.content(bytes.fromhex(path))).hexdigest() == content_id
        records = [(row[0], json.loads(version.content(bytes.fromhex(row[0])))) for row in rows if row[1] == "external"]
        links = [[path, record["url"], record["size"], record["etag"]] for path, record in records]
        metadata = {name: piece.hex() for name, piece in version.metadata.items()}
        files = [row for row in rows if row[1] != "external"]
        held.append(described_as | {"entries": files, "links": links, "metadata": metadata})
    return held


def contents_differ(store: Any) -> bool:
    """Whether any version of a store differs from what is expected; every content is read."""
    if described(store) != EXPECTED_DESCRIPTIONS:
        return True
    read: set[tuple[str, ...]] = set()  # an entry that is in many versions, unchanged since its origin, is read once
    for version in store.versions:
        if rows_of(version) != ROWS[version.id]:
            return True
        for path, _, size, content_id, _, _, origin in version.entries():
            if (path, content_id, origin) not in read:
                read.add((path, content_id, origin))
                content = version.content(path)
                if (len(content), blake3.blake3(content).hexdigest()) != (size, content_id):
                    return True
    return False


def positions(objects: list[Path]) -> Iterator[tuple[Path, int]]:
    """About FLIPS positions, evenly spread over the bytes of all objects, and at least eight in each."""
    total = sum(file.stat().st_size for file in objects)
    for file in objects:
        size = file.stat().st_size
        count = max(8, FLIPS * size // total)
        for i in range(count):
            yield file, (2 * i + 1) * size // (2 * count)


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 0xFF
    file.write_bytes(data)


def append(store: Path, **fields: Any) -> None:
    """Puts one more entry into the log of a store."""
    slot = len(list((store / "log" / "catalog").iterdir()))
    last = (store / "log" / "catalog" / f"{slot - 1:012}").read_bytes()
    entry = {"commit": f"{slot:032x}", "prev": blake3.blake3(last).hexdigest(), "time": 0, **fields}
    payload = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    head = b"DSTOREL\x01" + struct.pack("<I", len(payload))
    checksum = blake3.blake3(head + payload).digest()[:16]
    (store / "log" / "catalog" / f"{slot:012}").write_bytes(head + checksum + payload)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORE, tmp_path / "store"))


def test_the_independent_reader_finds_the_versions_of_the_golden_store() -> None:
    assert described(reader.read_store(STORE)) == EXPECTED_DESCRIPTIONS


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda expected: f"{expected['name']}-{expected['version']}")
def test_the_independent_reader_finds_every_entry_of_a_version(expected: dict[str, Any]) -> None:
    (version,) = [version for version in reader.read_store(STORE).versions if version.id == expected["id"]]
    assert rows_of(version) == ROWS[expected["id"]]


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda expected: f"{expected['name']}-{expected['version']}")
def test_every_content_of_a_version_is_readable_and_matches_its_content_id(expected: dict[str, Any]) -> None:
    (version,) = [version for version in reader.read_store(STORE).versions if version.id == expected["id"]]
    for path, _, size, content_id, *_ in ROWS[expected["id"]]:
        content = version.content(bytes.fromhex(path))
        assert (len(content), blake3.blake3(content).hexdigest()) == (size, content_id), bytes.fromhex(path)


def test_a_path_that_a_version_does_not_hold_has_no_content() -> None:
    first, *_, empty = reader.read_store(STORE).versions
    for version, path in ((first, b"many"), (first, b"zzz"), (first, b"!"), (empty, b"noise.bin")):
        with pytest.raises(KeyError):
            version.content(path)


def test_footers_censuses_shapes_and_cut_points_of_the_golden_store_are_as_they_should_be() -> None:
    assert list(reader.problems(reader.read_store(STORE))) == []


def test_a_tree_that_is_cut_by_another_rule_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reader.SHAPES, "leaf", (64, 1024, 22_369_621 // 4))
    assert any("level 0 are cut elsewhere" in problem for problem in reader.problems(reader.read_store(STORE)))


def test_a_file_that_is_cut_with_another_average_is_told() -> None:
    store = reader.read_store(STORE)
    store.average *= 2
    assert any("is cut elsewhere" in problem for problem in reader.problems(store))


def test_every_flipped_byte_is_refused_or_does_no_harm(copy: Path) -> None:
    harmed, silent, tried = [], 0, 0
    for file, position in positions(sorted(file for file in copy.rglob("*") if file.is_file())):
        whole = file.read_bytes()
        flip(file, position)
        try:
            if contents_differ(reader.read_store(copy)):
                harmed.append((file.relative_to(copy), position))
            silent += 1
        except reader.StoreError:
            pass
        file.write_bytes(whole)
        tried += 1
    assert harmed == []
    assert tried >= FLIPS
    assert silent < tried // 3  # only what lies in pack headers, footers and censuses is not needed to read versions


def test_the_second_golden_store_holds_links_metadata_and_reports_as_expected() -> None:
    assert what_second_holds(read_second()) == EXPECTED_SECOND


def test_the_second_golden_store_has_no_problems_and_a_checkpoint() -> None:
    assert list(reader.problems(read_second())) == []
    assert [file.name for file in (SECOND / "store" / "ckpt" / "catalog" / "1").iterdir()] == ["000000000000"]


def test_packs_of_an_output_storage_lie_there_and_children_can_leave_it() -> None:
    storages = [version.manifest["tree"]["place"][0] for version in read_second().versions]
    assert storages == [1, 1, 0]


def test_a_link_has_the_hash_of_its_record_or_of_the_bytes_it_leads_to() -> None:
    _, child, _ = read_second().versions
    ids = {path: content_id for path, kind, _, content_id, *_ in child.entries() if kind == "external"}
    assert ids[b"hashed.txt"] == blake3.blake3(b"its hash is known\n").hexdigest()
    assert ids[b"cats/tom.txt"] == blake3.blake3(child.content(b"cats/tom.txt")).hexdigest()


def test_metadata_reads_as_the_page_says() -> None:
    first = read_second().versions[0]
    pieces = first.metadata
    table = pyarrow.ipc.open_stream(pieces["array"]).read_all()
    assert table.schema.metadata[b"dataset_store.made_of"] == b"array"
    assert table.schema.metadata[b"dataset_store.dtype"] == b">i2"
    assert table.schema.metadata[b"dataset_store.shape"] == b"[2, 3]"
    assert table.column("values").to_pylist() == [0, 1, 2, 3, 4, 5]
    bits = pyarrow.ipc.open_stream(pieces["complex"]).read_all().column("values").to_pylist()
    assert struct.unpack("<2d", bytes(bits)) == (1.0, 2.0)
    frame = pyarrow.ipc.open_stream(pieces["frame"]).read_all()
    assert frame.schema.metadata[b"dataset_store.made_of"] == b"dataframe"
    assert frame.column("text").to_pylist() == ["x", None]
    assert json.loads(pieces["later"]) == "after"
    names = [name for name in pieces if name.startswith("dataset_store.reports")]
    reports = [json.loads(line) for name in names for line in pieces[name].splitlines()]
    assert names[0] == "dataset_store.reports"
    assert all(len(name) == len("dataset_store.reports/") + 32 for name in names[1:])
    assert [report[0] for report in reports] == ["text", "table", "text", "image"]
    assert reports[1][5] == {"columns": ["a"], "rows": [[1], [2]]}


def test_every_flipped_byte_of_the_second_store_is_refused_or_does_no_harm(tmp_path: Path) -> None:
    copied = Path(shutil.copytree(SECOND, tmp_path / "second"))
    harmed = []
    for file, position in positions(sorted(file for file in copied.rglob("*") if file.is_file())):
        if file.name == "expected.json":
            continue
        whole = file.read_bytes()
        flip(file, position)
        with contextlib.suppress(reader.StoreError):
            if what_second_holds(read_second(copied)) != EXPECTED_SECOND:
                harmed.append((file.relative_to(copied), position))
        file.write_bytes(whole)
    assert harmed == []


def what_third_holds(store: Any) -> list[Any]:
    """Everything of the third store, as its expected.json tells it; every content is read."""
    held = []
    for version, described_as in zip(store.versions, described(store), strict=True):
        lost = []
        for path, _, _, content_id, *_ in rows_of(version):
            try:
                assert blake3.blake3(version.content(bytes.fromhex(path))).hexdigest() == content_id
            except reader.StoreError:
                lost.append(bytes.fromhex(path).decode())
        held.append(described_as | {"entries": rows_of(version), "lost": lost})
    return held


def test_the_third_golden_store_holds_all_but_what_was_lost() -> None:
    store = reader.read_store(THIRD / "store")
    assert what_third_holds(store) == EXPECTED_THIRD
    lost = [f"version {version['id']}" for version in EXPECTED_THIRD if version["lost"]]
    assert [problem.partition(":")[0] for problem in reader.problems(store)] == lost


def test_the_third_golden_store_was_repacked_twice_and_has_lost_frames_and_holed_ones() -> None:
    store = reader.read_store(THIRD / "store")
    rows = [
        row for entry in store._repacks for row in struct.iter_unpack("<I16sIII16sIII", store.piece(entry["table"]))
    ]
    old, new = {row[:2] for row in rows}, {row[4:6] for row in rows}
    assert old & new
    assert {row[:3] == row[4:7] for row in rows if row[8]} == {True, False}
    kinds = [read_entry(file)["kind"] for file in sorted((THIRD / "store" / "log" / "catalog").iterdir())]
    assert {"artifact", "hold", "condemned", "release", "delete", "repack"} <= set(kinds)


def read_entry(file: Path) -> Any:
    return reader.read_envelope(file.read_bytes(), "L")


def test_a_checkpoint_that_tells_a_slot_otherwise_is_a_problem(tmp_path: Path) -> None:
    copied = Path(shutil.copytree(SECOND, tmp_path / "second"))
    (checkpoint,) = (copied / "store" / "ckpt" / "catalog" / "1").iterdir()
    payload = checkpoint.read_bytes()[28:]
    plain = zstandard.ZstdDecompressor().decompress(payload[16:]).replace(b"tag-1", b"tag-2", 1)
    payload = payload[:16] + zstandard.ZstdCompressor().compress(plain)
    head = b"DSTOREK\x01" + struct.pack("<I", len(payload))
    checkpoint.write_bytes(head + blake3.blake3(head + payload).digest()[:16] + payload)
    (problem,) = reader.problems(read_second(copied))
    assert "checkpoint 000000000000 tells slot" in problem


@pytest.mark.parametrize("key", ["config", "log/catalog/000000000006"])
def test_a_flipped_bit_of_an_object_that_nothing_else_names_is_refused(copy: Path, key: str) -> None:
    """No later entry tells the hash of the last one, so that its envelope alone guards it."""
    whole = (copy / key).read_bytes()
    for position in range(len(whole)):
        (copy / key).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(reader.StoreError):
            reader.read_store(copy)


def test_every_flipped_byte_of_a_pack_is_found_by_a_full_check(copy: Path) -> None:
    store_id = reader.read_store(copy).id
    unnoticed = []
    for file, position in positions(sorted((copy / "packs").glob("*/*"))):
        whole = file.read_bytes()
        flip(file, position)
        try:
            reader.check_pack(file, store_id)
            unnoticed.append((file.name, position))
        except reader.StoreError:
            pass
        file.write_bytes(whole)
    assert unnoticed == []


def test_a_slot_after_a_gap_in_the_log_is_told(copy: Path) -> None:
    (copy / "log" / "catalog" / "000000000005").unlink()
    store = reader.read_store(copy)
    assert len(store.versions) == 5
    assert any("after a gap" in problem for problem in reader.problems(store))


def test_a_missing_pack_is_refused_when_it_is_needed(copy: Path) -> None:
    first = reader.read_store(copy).versions[0]
    shutil.rmtree(copy / "packs")
    with pytest.raises(reader.StoreError, match="is missing"):
        list(first.entries())


def test_the_program_says_with_its_exit_code_whether_the_store_is_sound(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["independent_reader.py", str(copy)])
    assert reader.main() == 0
    assert "golden/store 1.0.0: 707 entries" in capsys.readouterr().out
    pack = next((copy / "packs").glob("*/*"))
    flip(pack, pack.stat().st_size - 20)
    assert reader.main() == 1
    assert f"pack {pack.name}: the footer's hash differs" in capsys.readouterr().err
    flip(copy / "config", 40)
    assert reader.main() == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "surprise"},
        {"kind": "publish", "version": EXPECTED[0]["id"], "surprise": 1},
        {"kind": "feature", "name": "surprise", "operations": ["read"]},
    ],
    ids=["kind", "field", "feature"],
)
def test_an_entry_that_only_a_newer_reader_knows_is_refused(copy: Path, fields: dict[str, Any]) -> None:
    append(copy, **fields)
    with pytest.raises(reader.StoreError, match="newer reader"):
        reader.read_store(copy)


def test_an_entry_that_names_another_entry_before_it_is_refused(copy: Path) -> None:
    append(copy, kind="publish", version=EXPECTED[0]["id"], prev="00" * 32)
    with pytest.raises(reader.StoreError, match="does not follow"):
        reader.read_store(copy)


def test_a_series_that_was_moved_has_its_new_name_unless_another_series_holds_it(copy: Path) -> None:
    series = reader.read_store(copy).versions[0].manifest["series"]
    append(copy, kind="move", series=series, project="golden", name="left")
    append(copy, kind="move", series=series, project="silver", name="left")
    names = [(version.project, version.name) for version in reader.read_store(copy).versions]
    assert names[:3] == [("silver", "left"), ("silver", "left"), ("golden", "left")]


def test_tags_are_added_and_removed_and_deleted_versions_are_gone(copy: Path) -> None:
    first, second, *_ = (version["id"] for version in EXPECTED)
    append(copy, kind="tags", version=second, add=["b", "a"], remove=[])
    append(copy, kind="tags", version=second, add=[], remove=["b", "c"])
    append(copy, kind="delete", versions=[first])
    versions = reader.read_store(copy).versions
    assert [(versions[0].id, versions[0].tags), len(versions)] == [(second, ["a"]), len(EXPECTED) - 1]


def test_a_second_version_of_one_number_is_ignored(copy: Path) -> None:
    """Though opened as a series of its own, as by two writers who opened one name at once."""
    manifest = reader.read_store(copy).versions[0].manifest
    again = {**manifest, "commit": "ab" * 16, "series": "cd" * 16}
    kept = {"commit": "ef" * 16, "version": "1.0.2"}
    for fields in (again, {**again, **kept}):
        append(copy, **{name: value for name, value in fields.items() if name not in ("prev", "time")})
    *_, last = versions = reader.read_store(copy).versions
    assert [version.id for version in versions] == [version["id"] for version in EXPECTED] + ["ef" * 16]
    assert (last.project, last.name, last.version) == ("golden", "store", "1.0.2")
    assert rows_of(last) == rows_of(versions[0])


def test_a_version_is_read_at_the_places_that_a_repack_moved_its_frames_to(copy: Path) -> None:
    """All frames of all packs go, last ones first, into one new pack; the table of relocation stands at its start."""
    rows, frames, at = [], b"", 1 << 16
    old_names = sorted(pack.name for pack in (copy / "packs").glob("*/*"))
    new_name = bytes(range(16))
    for pack in sorted((copy / "packs").glob("*/*")):
        data = pack.read_bytes()
        (end,) = struct.unpack("<Q", data[-64:-56])
        places = [40]
        while places[-1] < end:
            places.append(places[-1] + reader.read_frame(data, places[-1]).stored)
        for start, stop in reversed(list(zip(places, places[1:], strict=False))):
            old = struct.pack("<I16sII", 0, bytes.fromhex(pack.name), start, stop - start)
            rows.append(old + struct.pack("<I16sIII", 0, new_name, at, stop - start, 0))
            frames, at = frames + data[start:stop], at + stop - start
        pack.unlink()
    table = b"".join(sorted(rows))
    frame = b"DSF1" + struct.pack("<BBHIII", 1, 0, 0, len(table), len(table), 1) + table
    pack = copy / "packs" / new_name.hex()[:2] / new_name.hex()
    pack.parent.mkdir()
    pack.write_bytes(bytes(40) + frame.ljust((1 << 16) - 40, b"\0") + frames)
    table_id = blake3.blake3(table)
    digest = blake3.blake3(table_id.digest() + struct.pack("<I", len(table))).hexdigest()
    segment = [0, new_name.hex(), 40, len(frame), 0, len(table), digest]
    blob = {"id": table_id.hexdigest(), "size": len(table), "segments": [segment]}
    append(copy, kind="repack", packs=[[0, name] for name in old_names], table=blob)
    assert not contents_differ(reader.read_store(copy))
