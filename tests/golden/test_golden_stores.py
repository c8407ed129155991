"""A store that was written once must stay readable, for ever, by whoever has the page that describes the format.

`store-1/store` is such a store and `store-1/expected.json` says what it holds. It is read here by a reader that was
written from `docs/format.md` alone.
"""

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import blake3
import pytest

HERE = Path(__file__).parent
STORE = HERE / "store-1" / "store"
EXPECTED = json.loads((HERE / "store-1" / "expected.json").read_bytes())
FLIPS = 300


def load_sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


reader = load_sibling("independent_reader")


def expected_rows() -> dict[str, list[list[Any]]]:
    """The rows of every version in the order of its tree; some are told as what differs from another version."""
    rows: dict[str, dict[bytes, list[Any]]] = {}
    for version in EXPECTED:
        held = dict(rows[version["on_top_of"]]) if "on_top_of" in version else {}
        for path in version.get("removed", []):
            del held[bytes.fromhex(path)]
        held.update({bytes.fromhex(row[0]): row for row in version["entries"]})
        rows[version["id"]] = held
    in_order = sorted  # of keys, which are paths with zero bytes between the names
    return {
        version: [held[path] for path in in_order(held, key=lambda path: path.replace(b"/", b"\0"))]
        for version, held in rows.items()
    }


ROWS = expected_rows()


def rows_of(version: Any) -> list[list[Any]]:
    return [[path.hex(), *rest] for path, *rest in version.entries()]


def described(store: Any) -> list[dict[str, Any]]:
    """What a store says of its versions, in the words of expected.json."""
    words = ("id", "project", "name", "version", "tags", "parents", "digest")
    return [{word: getattr(version, word) for word in words} for version in store.versions]


EXPECTED_DESCRIPTIONS = [
    {word: version[word] for word in ("id", "project", "name", "version", "tags", "parents", "digest")}
    for version in EXPECTED
]


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
