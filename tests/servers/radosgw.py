#!/usr/bin/env python3
"""A real S3 server for tests: Ceph's radosgw from Debian, on loopback, with all it holds in memory.

    python tests/servers/radosgw.py --install     # once, as root: the packages, about 64 MB
    python tests/servers/radosgw.py               # a server until it is interrupted; prints what to export

From a test, `with radosgw(folder) as endpoint`. It is one monitor, one OSD that keeps objects in memory, and the
gateway; no manager is needed. Promises: it listens on 127.0.0.1 alone, it is up or an error within two minutes, and
when the `with` ends its processes are ended by their ids. Never: touches a Ceph that the machine has, keeps anything.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
ACCESS_KEY, SECRET_KEY = "tests", "testtest"

_PROGRAMS = ("setpriv", "radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool")
_PATIENCE = 90.0
_COMMAND_PATIENCE = 60.0

# `ms mon client mode`: without authentication the gateway would ask for an encrypted line for ever.
# `tcp_nodelay`: else each read waits 40 ms for an acknowledgement.
# No daemon may change user or look for the machine's own cluster; paths are absolute, as each of them changes folder.
_CONF = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
pid file =
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = {bytes}
osd memory target = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
debug ms = 0

[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{http} tcp_nodelay=1
rgw thread pool size = 64
rgw enable usage log = false
rgw enable ops log = false
"""


def is_installed() -> bool:
    """Whether the programs are on this machine."""
    return all(shutil.which(program) for program in _PROGRAMS)


def install() -> None:
    """Install the packages, as root on Debian; nothing is started."""
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, env=quiet)
    subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES], check=True, env=quiet)


@contextmanager
def radosgw(folder: Path, *, size: int = 4 << 30) -> Iterator[str]:
    """A server with nothing in it for as long as the `with` lasts; yields its endpoint.

    Args:
        folder: An empty folder for its configuration and logs.
        size: Bytes that its memory store says it has.

    Raises:
        RuntimeError: It did not come up; the end of what it said is in the message.
    """
    folder = folder.absolute()
    mon_v2, mon_v1, http = _free_ports(3)
    conf = folder / "ceph.conf"
    conf.write_text(_CONF.format(fsid=uuid.uuid4(), folder=folder, bytes=size, mon_v2=mon_v2, mon_v1=mon_v1, http=http))
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    with ExitStack() as running:
        begun = time.monotonic()

        def start(*command: str) -> None:
            running.enter_context(_daemon([*command, "-c", str(conf), "-f"], folder))

        def run(*command: str) -> None:
            _run([*command, "-c", str(conf)], folder)

        monmap = str(folder / "monmap")
        addresses = f"[v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]"
        run("monmaptool", "--create", "--addv", "a", addresses, "--fsid", _fsid(conf), monmap)
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        start("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        run("ceph", "--connect-timeout", "30", "osd", "new", osd)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "-i", "0")
        user = ("user", "create", "--uid", "tests", "--display-name", "tests")
        run("radosgw-admin", *user, "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
        start("radosgw", "-n", "client.rgw.a")
        _until(lambda: _answers(http), begun + _PATIENCE, folder)
        yield f"http://127.0.0.1:{http}"


@contextmanager
def _daemon(command: Sequence[str], folder: Path) -> Iterator[None]:
    """A process for as long as the `with` lasts."""
    with open(folder / "output", "ab") as output:
        # Should this process be killed, its daemons end too.
        mortal = ["setpriv", "--pdeathsig", "TERM", *command]
        process = subprocess.Popen(mortal, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_COMMAND_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"`{' '.join(command)}` did not end.{_said(folder)}") from late
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr[-2000:]}{_said(folder)}")


def _until(holds: Callable[[], bool], deadline: float, folder: Path) -> None:
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"radosgw is not up after {_PATIENCE:.0f} s.{_said(folder)}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as line:
        line.settimeout(5)
        line.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return line.recv(8) == b"HTTP/1.1"
    return False


def _said(folder: Path) -> str:
    """The end of what the daemons said."""
    logs = [folder / "output", *sorted(folder.glob("*.log"))]
    return "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs if log.exists())


def _fsid(conf: Path) -> str:
    return conf.read_text().split("fsid = ")[1].split("\n")[0]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def main() -> int:
    """Install, or serve until interrupted."""
    parser = argparse.ArgumentParser(description="a real S3 server on loopback, for tests")
    parser.add_argument("--install", action="store_true", help="install the packages with apt, as root, and end")
    if parser.parse_args().install:
        install()
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not is_installed():
        print("radosgw is not installed: run this with --install, as root.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, radosgw(Path(folder)) as endpoint:
        for name, value in _environment(endpoint).items():
            print(f"export {name}={value}")
        print("# make a bucket before you use it; end with Ctrl-C", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
