"""A store that loses packs, and what a repair and a check say of it."""

from dataset_store.dataset.checks.repairing import repair_store
from dataset_store.dataset.checks.store_check import verify_store
from dataset_store.dataset.checks.surveying import EVERY_BYTE, STRUCTURE
from dataset_store.dataset.workspace import open_workspace
from dataset_store.testing.folders import write


def packs_there(home):
    return sorted(path for path in (home / "store" / "packs").rglob("*") if path.is_file())


def change(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def repair(**options):
    return repair_store(open_workspace(), apply=True, **options)


def check(depth=STRUCTURE):
    return verify_store(open_workspace(), depth)


def small_files(home, name, changed=()):
    """Files that share a frame; the changed ones are of another content."""
    return write(home / name, {f"f{at}": (b"new" if at in changed else b"old") * (at + 10) for at in range(8)})


def first_pack(home):
    """The pack of the version that was made first."""
    return min(packs_there(home), key=lambda path: path.stat().st_mtime_ns)


def lost_files(found=None):
    return {one.id: set(one.paths) for one in (found or check(EVERY_BYTE)).affected}
