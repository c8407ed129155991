"""The main job on real data: version a dataset, edit it, make a child version, get both back.

The data are the files of the PyPI package `pycountry`: ISO country, currency and language tables and their
translations. A store is made in a temporary folder and removed at the end.
"""

import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def main() -> int:
    package = find_spec("pycountry")
    if package is None or not package.submodule_search_locations:
        print("Install the demo's data first: pip install 'dataset-store[demo]'", file=sys.stderr)
        return 1
    home = Path(tempfile.mkdtemp(prefix="dataset-store-demo-"))
    os.environ.update(
        DATASET_STORE_URL=str(home / "store"),
        DATASET_STORE_CACHE=str(home / "cache"),
        DATASET_STORE_DATA=str(home / "data"),
    )
    try:
        run(home, Path(next(iter(package.submodule_search_locations))))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def run(home: Path, source: Path) -> None:
    from dataset_store import Dataset

    work = home / "countries"
    for part in ("databases", "locales"):
        shutil.copytree(source / part, work / part)
    print(f"{count(work)} files, {size(work) / 1e6:.1f} MB of country tables and translations\n")

    with step("version 1: create, sync, upload, finalize"):
        first = Dataset.create(dataset_project="demo", dataset_name="countries")
        first.sync_folder(work)
        first.upload()
        first.finalize()
    before = stored(home)
    print(f"  {first.version}: stored {before / 1e6:.2f} MB\n")

    table = work / "databases" / "iso639-3.json"
    text = table.read_bytes()
    middle = text.index(b"{", len(text) // 2)
    inserted = b'{"alpha_3": "qdm", "name": "Demonese", "scope": "I", "type": "C"},\n    '
    table.write_bytes(text[:middle] + inserted + text[middle:])
    (work / "locales" / "de").rename(work / "locales" / "de_DE")
    shutil.rmtree(work / "locales" / "fr")

    with step("version 2: one language inserted, one folder renamed, one removed"):
        second = Dataset.create(parent_datasets=[first], dataset_tags=["latest"])
        removed, added, modified = second.sync_folder(work)
        second.upload()
        second.finalize()
    print(f"  {second.version}: {removed} removed, {added} added, {modified} modified")
    print(f"  stored {(stored(home) - before) / 1e3:.1f} kB more\n")

    with step("get version 1"):
        old = Dataset.get(dataset_project="demo", dataset_name="countries", dataset_version="1.0.0").get_local_copy()
    with step("get version 2 by its tag, sharing what version 1 left on disk"):
        new = Dataset.get(dataset_tags="latest").get_local_copy()
    with step("get version 2 again"):
        Dataset.get(dataset_tags="latest").get_local_copy()
    assert (Path(old) / "databases" / "iso639-3.json").read_bytes() == text
    assert (Path(new) / "databases" / "iso639-3.json").read_bytes() == table.read_bytes()
    assert count(Path(new)) == count(work)
    print("\nBoth versions are back, byte for byte.")


@contextmanager
def step(what: str):
    begin = time.perf_counter()
    yield
    print(f"{time.perf_counter() - begin:7.3f} s  {what}")


def count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def stored(home: Path) -> int:
    return size(home / "store")


if __name__ == "__main__":
    sys.exit(main())
