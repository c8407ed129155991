"""A proxy before an HTTP server on loopback that loses, cuts, holds back, refuses and changes what passes.

What is done with a request is a value: a function from `Request` to an action. `mixed` makes one from a seed and a
rate; the tests of servers that lie write their own. Every request is kept, so that requests can be counted as the
server sees them. Promises: each byte that no action changes passes as it is; the same seed and the same order of
requests fail in the same way. Never: answers by itself, unless an action says so.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from urllib.parse import parse_qs, urlsplit

_LIMIT = 256 << 10
_PIECE = 256 << 10


@dataclass(frozen=True)
class Request:
    """One request: its number from 0, and what it says."""

    number: int
    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name."""

    @property
    def key(self) -> str:
        """The path below the bucket; empty for the bucket itself."""
        return urlsplit(self.target).path.lstrip("/").partition("/")[2]

    @property
    def is_conditional(self) -> bool:
        return "if-none-match" in self.headers

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and not self.key and "list-type" in parse_qs(urlsplit(self.target).query)


class Fault(Enum):
    """What goes wrong with one request."""

    REFUSED = "the line is cut before the server sees the request"
    LOST = "it is carried out, and the line is cut before the reply"
    CUT_HEAD = "it is carried out, and the line is cut between head and body of the reply"
    CUT_BODY = "it is carried out, and the line is cut in the middle of the body"
    STALL = "the server never sees it, and nothing is said for as long as the client holds on"
    SLOW_DOWN = "the server never sees it; the answer is 503 SlowDown"
    FLIP = "it is carried out, and a bit of the body of the reply is flipped"


@dataclass(frozen=True)
class Answer:
    """An answer that the server never gave, after the request was kept from it."""

    status: int
    code: str = ""
    also: bool = False
    """Whether the server gets the request all the same; its reply is dropped."""
    tag: str = ""
    """What names an object that was made."""


@dataclass(frozen=True)
class Changed:
    """The request or the reply is passed on with something else in it."""

    without: tuple[str, ...] = ()
    """Headers that the server does not get, in lower case."""
    body: Callable[[bytes], bytes] = bytes
    """What becomes of the reply's body; the length it tells is that of the new one."""
    status: int | None = None
    """What the reply says instead of its own status."""
    only: tuple[int, ...] | None = None
    """Replies of another status than these are left as they are."""


Action = Fault | Answer | Changed | None
"""None passes everything on."""


def mixed(seed: int, rate: float, faults: Sequence[Fault]) -> Callable[[Request], Action]:
    """One of `faults` for the share `rate` of all requests, drawn from a seed."""
    drawn = random.Random(seed)

    def act(_request: Request) -> Action:
        return drawn.choice(faults) if drawn.random() < rate else None

    return act


class FaultProxy:
    """See the module. `act` may be replaced at any time, and is called by one thread."""

    def __init__(self, host: str, port: int) -> None:
        self.begin_anew()
        self._upstream = (host, port)
        self._loop = asyncio.new_event_loop()
        self._lines: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["FaultProxy"]:
        """Serve from a thread of its own for as long as the `with` lasts."""
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LIMIT))
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._end(server), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def begin_anew(self) -> None:
        """Pass everything on, and forget what has passed."""
        self.act: Callable[[Request], Action] = lambda _request: None
        self.requests: list[Request] = []
        self.done: list[tuple[Request, Action]] = []
        """What was done with each request to which something was done."""

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)
        await asyncio.sleep(0.05)  # a connection that was closed is gone a turn of the loop later

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = self._loop.create_task(_Line(self, reader, writer).serve(*self._upstream))
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)

    def decide(self, head: "_Head") -> tuple[Request, Action]:
        method, target, _ = head.first.split(" ", 2)
        request = Request(len(self.requests), method, target, head.headers)
        self.requests.append(request)
        action = self.act(request)
        if action is not None:
            self.done.append((request, action))
        return request, action


@dataclass(frozen=True)
class _Head:
    """A first line and headers, in the order and spelling in which they came."""

    first: str
    rows: tuple[tuple[str, str], ...]

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.rows}

    def without(self, *names: str) -> "_Head":
        return replace(self, rows=tuple(row for row in self.rows if row[0].lower() not in names))

    @property
    def status(self) -> int:
        return int(self.first.split(" ")[1])

    def with_status(self, status: int) -> "_Head":
        version, _, reason = self.first.split(" ", 2)
        return replace(self, first=f"{version} {status} {reason}")

    def with_length(self, length: int) -> "_Head":
        return replace(
            self.without("content-length"), rows=(*self.without("content-length").rows, ("Content-Length", str(length)))
        )

    def encoded(self) -> bytes:
        return "\r\n".join([self.first, *(f"{name}: {value}" for name, value in self.rows), "", ""]).encode("latin-1")


class _Line:
    """One connection of a client, and the server's that belongs to it."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def serve(self, host: str, port: int) -> None:
        self._address = (host, port)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                while await self._exchange():
                    pass
            finally:
                self._hang_up()
                self._writer.close()

    async def _exchange(self) -> bool:
        """Pass one request on, and its reply; whether the connection stays."""
        head = await _read_head(self._reader)
        request, action = self._proxy.decide(head)
        if action is Fault.STALL:
            await asyncio.Event().wait()
        if action is Fault.REFUSED:
            return False
        if head.headers.get("expect", "").lower() == "100-continue":
            # The server is not asked: it gets the whole request or nothing of it.
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _read_body(self._reader, head, request.method)
        if action is Fault.SLOW_DOWN:
            action = Answer(503, "SlowDown")
        if isinstance(action, Answer) and not action.also:
            return await self._answer(action)
        told, data = await self._ask(head, body, request.method, action)
        if isinstance(action, Answer):
            return await self._answer(action)
        return await self._reply(told, data, request.method, action)

    async def _ask(self, head: _Head, body: bytes, method: str, action: Action) -> tuple[_Head, bytes]:
        """What the server answers."""
        dropped = action.without if isinstance(action, Changed) else ()
        for again in (self._server is not None, False):
            reader, writer = await self._connected()
            try:
                writer.write(head.without("expect", *dropped).encoded() + body)
                told = await _read_head(reader)
                break
            except (OSError, asyncio.IncompleteReadError):
                self._hang_up()  # a server may end a connection that was idle
                if not again:
                    raise
        no_body = method == "HEAD" or told.status in {204, 304}
        data = b"" if no_body else await _read_body(reader, told, "reply")
        if told.headers.get("connection", "").lower() == "close":
            self._hang_up()
        return told, data

    async def _reply(self, told: _Head, data: bytes, method: str, action: Action) -> bool:
        if action is Fault.LOST:
            return False
        if action is Fault.FLIP and data:
            place = len(data) // 2
            data = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        if isinstance(action, Changed) and (action.only is None or told.status in action.only):
            told, data = told.with_status(action.status or told.status), action.body(data)
        if method != "HEAD":
            told = told.without("transfer-encoding").with_length(len(data))
        if action is Fault.CUT_HEAD:
            data = b""
        if action is Fault.CUT_BODY:
            data = data[: len(data) // 2]
        self._writer.write(told.encoded())
        for start in range(0, len(data), _PIECE):
            self._writer.write(data[start : start + _PIECE])
            await self._writer.drain()
        await self._writer.drain()
        return action not in {Fault.CUT_HEAD, Fault.CUT_BODY}

    async def _answer(self, answer: Answer) -> bool:
        body = f"<?xml version='1.0'?><Error><Code>{answer.code}</Code><Message>planned</Message></Error>".encode()
        body = body if answer.code else b""
        rows = (("Content-Type", "application/xml"), *([("ETag", answer.tag)] if answer.tag else []))
        head = _Head(f"HTTP/1.1 {answer.status} Planned", rows).with_length(len(body))
        self._writer.write(head.encoded() + (b"" if answer.status == 304 else body))
        await self._writer.drain()
        return True

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._server is None:
            self._server = await asyncio.open_connection(*self._address, limit=_LIMIT)
        return self._server

    def _hang_up(self) -> None:
        if self._server is not None:
            self._server[1].close()
            self._server = None


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    if lines[0].startswith("HTTP/1.1 100"):
        return await _read_head(reader)
    rows = (line.partition(":") for line in lines[1:] if line)
    return _Head(lines[0], tuple((name, value.strip()) for name, _, value in rows))


async def _read_body(reader: asyncio.StreamReader, head: _Head, method: str) -> bytes:
    """The body of a request or a reply; of a chunked request as it was sent, of a chunked reply without the chunks."""
    headers = head.headers
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader, keep=method != "reply")
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read() if method == "reply" else b""


async def _read_chunks(reader: asyncio.StreamReader, *, keep: bool) -> bytes:
    pieces = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        pieces.append(line + data if keep else data[:-2])
        if not size:
            return b"".join(pieces)
