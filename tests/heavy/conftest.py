"""A disk for a million files."""

import gc
import subprocess

import pytest


@pytest.fixture
def roomy(tmp_path):
    """A disk in memory with four million inodes; the usual disk where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=14g,nr_inodes=4m", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield disk
        return
    yield disk
    gc.collect()  # what a test left open keeps the disk, and its memory
    subprocess.run(["umount", "--lazy", disk], check=True)
