"""A folder served by SFTP on loopback, for as long as a `with` lasts."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko


class _Open(paramiko.ServerInterface):
    def check_auth_password(self, username, password):
        return paramiko.AUTH_SUCCESSFUL if (username, password) == ("user", "secret") else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED


class _Handle(paramiko.SFTPHandle):
    def stat(self):
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


class _Folder(paramiko.SFTPServerInterface):
    root: Path

    def _at(self, path):
        return str(self.root) + self.canonicalize(path)

    def _answer(self, call, *arguments):
        try:
            call(*arguments)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        return paramiko.SFTP_OK

    def list_folder(self, path):
        try:
            with os.scandir(self._at(path)) as rows:
                return [paramiko.SFTPAttributes.from_stat(row.stat(), row.name) for row in rows]
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def stat(self, path):
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(self._at(path)))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat

    def open(self, path, flags, attr):
        try:
            descriptor = os.open(self._at(path), flags, 0o644)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        if os.path.isdir(self._at(path)):
            os.close(descriptor)
            return paramiko.SFTP_FAILURE
        handle = _Handle(flags)
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        handle.readfile = handle.writefile = os.fdopen(descriptor, "wb" if writes else "rb", 0)
        return handle

    def remove(self, path):
        return self._answer(os.remove, self._at(path))

    def rename(self, oldpath, newpath):
        return self._answer(os.link, self._at(oldpath), self._at(newpath))

    def posix_rename(self, oldpath, newpath):
        return self._answer(os.replace, self._at(oldpath), self._at(newpath))

    def mkdir(self, path, attr):
        return self._answer(os.mkdir, self._at(path))

    def rmdir(self, path):
        return self._answer(os.rmdir, self._at(path))


@contextmanager
def sftp_server(root: Path) -> Iterator[str]:
    """Serve `root`; yields the URL of its top, with user and password."""
    key = paramiko.ECDSAKey.generate()
    folder = type("Folder", (_Folder,), {"root": root})
    listener = socket.create_server(("127.0.0.1", 0))
    transports = []

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, folder)
            transport.start_server(server=_Open())
            transports.append(transport)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"sftp://user:secret@127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for transport in transports:
            transport.close()
        thread.join()
