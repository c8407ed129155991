"""A folder served by HTTP on loopback, with ranges and etags, for as long as a `with` lasts."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class _Folder(BaseHTTPRequestHandler):
    root: Path
    ranges = True
    etags = True
    lengths = True
    protocol_version = "HTTP/1.1"
    connections: list[socket.socket]

    def setup(self):
        super().setup()
        self.connections.append(self.connection)

    def do_HEAD(self):
        self._serve(body=False)

    def do_GET(self):
        self._serve(body=True)

    def _serve(self, *, body):
        path = self.root / unquote(self.path.partition("?")[0].lstrip("/"))
        if not path.is_file():
            self._head(404, 0)
            return
        data = path.read_bytes()
        etag = f'"{hashlib.md5(data).hexdigest()}"' if self.etags else None
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not self.ranges:
            self._head(200, len(data), etag)
            self.wfile.write(data if body else b"")
            return
        start, stop = int(wanted[1]), int(wanted[2] or len(data)) + bool(wanted[2])
        if start >= len(data):
            self._head(416, 0)
            return
        part = data[start:stop]
        self._head(206, len(part), etag, f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.wfile.write(part if body else b"")

    def _head(self, code, length, etag=None, content_range=None):
        self.send_response(code)
        if self.lengths or code != 200:
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Connection", "close")
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if etag:
            self.send_header("ETag", etag)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def log_message(self, format, *args):
        pass


@contextmanager
def http_server(root: Path, *, ranges: bool = True, etags: bool = True, lengths: bool = True) -> Iterator[str]:
    """Serve `root`, with ranges, etags and lengths or without; yields the URL of its top."""
    told = {"root": root, "ranges": ranges, "etags": etags, "lengths": lengths, "connections": []}
    handler = type("Folder", (_Folder,), told)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        for connection in handler.connections:  # clients keep them open, and would be answered on
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()
