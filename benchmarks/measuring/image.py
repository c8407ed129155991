"""A file system of its own for each system: a loop-mounted image, made anew.

On the root disks of some machines freeing a block that was synced costs a millisecond, which bends every figure of
whoever replaces files. An image takes that away, and no system finds what another left.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=0", "-i", "4096"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


_ATTEMPTS = 10


@contextmanager
def mounted(scratch: Path, size: int, kind: str = "ext4") -> Iterator[Path]:
    """A new file system of `size` bytes, mounted in `scratch`; unmounted and deleted at the end. Needs root."""
    handle, name = tempfile.mkstemp(prefix="image-", dir=scratch)
    os.ftruncate(handle, size)
    os.close(handle)
    folder = Path(tempfile.mkdtemp(prefix="mount-", dir=scratch))
    try:
        subprocess.run([*MAKE[kind], name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Tables of inodes are written when they are used, not by a thread of the kernel beside what is measured.
        options = "loop,noinit_itable" if kind == "ext4" else "loop"
        subprocess.run(["mount", "-o", options, name, str(folder)], check=True)
        try:
            yield folder
        finally:
            unmount(folder)
    finally:
        folder.rmdir()
        Path(name).unlink()


def unmount(folder: Path) -> None:
    """Unmount; some systems leave a process behind that is still in the folder, which is waited for."""
    for _ in range(_ATTEMPTS):
        if subprocess.run(["umount", str(folder)], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        time.sleep(1)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def drop_page_cache() -> None:
    """Forget what of files is in memory, so that the next to read them reads the disk. Needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
