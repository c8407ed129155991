"""Whatever a path says, nothing outside the target folder is made, changed or removed."""

import io
import os
import tarfile
import zipfile
from random import Random

import pytest
from evil_paths import Ground, evil_paths, run

from dataset_store.errors import DatasetStoreError
from dataset_store.local.archives import extract_archive


@pytest.mark.parametrize(
    "count",
    [
        1_000,
        pytest.param(30_000, marks=[pytest.mark.heavy, pytest.mark.timeout(900)]),
        pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_paths_from_users_and_from_trees_stay_inside(tmp_path, count, tell):
    told = run(count, tmp_path)
    tell("evil paths", all=count, **told)
    assert told["taken"] + told["refused"] == count
    assert (
        min(told[name] for name in ("taken", "refused", "made", "StorageFailed", "UnsupportedFileType")) > count // 100
    )


def evil_zip(paths, rng):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as made:
        for path in paths:
            info = zipfile.ZipInfo("x")
            info.filename = path.decode("utf-8", "replace") or "/"  # the constructor would mend it
            is_link = rng.random() < 0.3
            info.external_attr = (0o120777 if is_link else 0o100644) << 16
            made.writestr(info, rng.choice(["../outside", "/etc/passwd", "inside", "a"]) if is_link else "text")
    return held.getvalue()


def evil_tar(paths, rng):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz", format=tarfile.PAX_FORMAT, compresslevel=1) as made:
        for path in paths:
            info = tarfile.TarInfo(path.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
            info.type = rng.choice(
                [tarfile.REGTYPE] * 6 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
            )
            info.linkname = rng.choice(["../outside", "/etc/passwd", "inside", "a", "../outside/precious"])
            info.mode = rng.choice([0o644, 0o4755, 0o777])
            made.addfile(info)
    return held.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("count", [100, pytest.param(3_000, marks=[pytest.mark.heavy, pytest.mark.timeout(900)])])
@pytest.mark.parametrize(("ending", "make"), [(".zip", evil_zip), (".tar.gz", evil_tar)])
def test_members_of_archives_stay_inside(tmp_path, ending, make, count):
    rng, ground, archive = Random(2), Ground(tmp_path / "base"), tmp_path / f"archive{ending}"
    paths = evil_paths(rng)
    extracted = refused = 0
    for _ in range(count):
        archive.write_bytes(make([next(paths) for _ in range(rng.choice((1, 1, 2, 3)))], rng))
        ground.anew()
        try:
            extract_archive(str(archive), os.fspath(ground.target))
            extracted += 1
        except DatasetStoreError:
            refused += 1
        ground.check()
        for folder, _, names in os.walk(ground.target):
            for name in names:
                state = os.lstat(os.path.join(folder, name))
                assert state.st_mode & 0o7000 == 0
                assert state.st_nlink == 1
    assert min(extracted, refused) > count // 20
