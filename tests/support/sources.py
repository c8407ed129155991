"""Folders of files elsewhere: in memory, in a bucket, on this disk, behind SFTP or HTTP."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from http_server import http_server
from sftp_server import sftp_server

from dataset_store.testing.folders import write

Source = tuple[str, Callable[[str, bytes], object]]
"""The URL of a folder, and a function that writes a file into it by its path there."""


@contextmanager
def source_of(kind: str, files: dict[str, bytes], home: Path, bucket: str) -> Iterator[Source]:
    """A folder that holds `files`; kind is `memory`, `s3`, `file`, `sftp` or `http`."""
    if kind in {"http", "sftp"}:
        folder = write(home / "served", files)
        with {"http": http_server, "sftp": sftp_server}[kind](folder) as url:
            yield url, lambda path, data: write(folder, {path: data})
        return
    name = secrets.token_hex(4)
    url = {"memory": f"memory://{name}", "s3": f"{bucket}/{name}", "file": f"file://{home}/{name}"}[kind]
    filesystem, root = fsspec.core.url_to_fs(url)

    def put(path: str, data: bytes) -> None:
        filesystem.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
        filesystem.pipe_file(f"{root}/{path}", data)

    for path, data in files.items():
        put(path, data)
    yield url, put
