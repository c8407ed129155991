"""An object store at the other end of a link: S3's API as far as backup programs use it, 30 ms and 100 MB/s away.

    python -m benchmarks.servers.far_store      prints the port, and serves until its input ends

Objects are in memory and every request takes as little as it can, so what is measured is the client and the link: each
request begins a round trip after it was sent, a new connection another one before, and all bodies of one direction
share its rate. TLS and signatures are not looked at. `GET /-` tells what was asked so far, `DELETE /-` begins to count
anew.
"""

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

from benchmarks.servers.link import RATE, ROUND_TRIP

PIECE = 256 << 10
_SLEEP = 0.002  # shorter waits are added up


class Lane:
    """One direction of the link: what passes takes its turn."""

    def __init__(self) -> None:
        self.free = 0.0
        self.passed = 0

    async def carry(self, count: int) -> None:
        """Wait until `count` more bytes have passed."""
        now = asyncio.get_running_loop().time()
        self.free = max(self.free, now) + count / RATE
        self.passed += count
        if self.free - now > _SLEEP:
            await asyncio.sleep(self.free - now)


class Objects:
    """What is stored, by bucket and key, and the uploads in parts that are under way."""

    def __init__(self) -> None:
        self.data: dict[str, tuple[bytes, str]] = {}
        self.parts: dict[str, dict[int, bytes]] = {}

    def put(self, key: str, data: bytes) -> str:
        tag = f'"{uuid.uuid4().hex}"'  # of the write, not of the bytes: hashing would be the clients' time too
        self.data[key] = (data, tag)
        return tag

    def names(self, bucket: str, prefix: str, after: str) -> list[str]:
        start = len(bucket) + 1
        found = (key[start:] for key in self.data if key.startswith(f"{bucket}/{prefix}"))
        return sorted(one for one in found if one > after)


class Store:
    """The requests of S3's API. Paths are /bucket/key."""

    def __init__(self) -> None:
        self.up, self.down = Lane(), Lane()
        self.objects = Objects()
        self.asked: Counter[str] = Counter()
        self.known: set[int] = set()
        """The ports of connections that were seen."""
        self.began = format_datetime(datetime.now(UTC), usegmt=True)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/-":
            return self.counts(request)
        self.asked[request.method] += 1
        await asyncio.sleep(ROUND_TRIP * (1 if self.is_known(request) else 2))
        bucket, _, key = request.path[1:].partition("/")
        body = await self.received(request)
        if not key:
            return self.bucket(request, bucket, body)
        name = f"{bucket}/{key}"
        if "uploads" in request.query or "uploadId" in request.query:
            return self.in_parts(request, name, body)
        return await {"GET": self.get, "HEAD": self.get, "PUT": self.put, "DELETE": self.delete}[request.method](
            request, name, body
        )

    def is_known(self, request: web.Request) -> bool:
        """Whether the connection of a request is open already; if not, it is from now on."""
        assert request.transport is not None
        line = request.transport.get_extra_info("peername")[1]
        known = line in self.known
        self.known.add(line)
        return known

    def counts(self, request: web.Request) -> web.Response:
        told = {
            "requests": sum(self.asked.values()),
            "sent": self.down.passed,
            "received": self.up.passed,
            "objects": len(self.objects.data),
            "bytes": sum(len(data) for data, _ in self.objects.data.values()),
        }
        if request.method == "DELETE":
            self.asked.clear()
            self.up.passed = self.down.passed = 0
        return web.json_response(told)

    async def received(self, request: web.Request) -> bytes:
        pieces = []
        async for piece in request.content.iter_chunked(PIECE):
            await self.up.carry(len(piece))
            pieces.append(piece)
        body = b"".join(pieces)
        encoded = request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
        return b"".join(decoded(body)) if encoded else body

    def bucket(self, request: web.Request, bucket: str, body: bytes) -> web.Response:
        if request.method in ("PUT", "HEAD"):
            return web.Response()
        if "location" in request.query:
            return xml("LocationConstraint", "")
        if "delete" in request.query:
            keys = [one.text or "" for one in ElementTree.fromstring(body).iter() if one.tag.endswith("Key")]
            for key in keys:
                self.objects.data.pop(f"{bucket}/{key}", None)
            return xml("DeleteResult", "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys))
        return self.listing(request, bucket)

    def listing(self, request: web.Request, bucket: str) -> web.Response:
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        most = int(query.get("max-keys") or 1000)
        shown = quote if query.get("encoding-type") == "url" else escape
        told: dict[str, str] = {}
        last, more = "", False
        for name in self.objects.names(bucket, prefix, after):
            cut = name.find(delimiter, len(prefix)) + 1 if delimiter else 0
            if cut and name[:cut] <= after:
                continue
            if len(told) == most and (name[:cut] if cut else name) not in told:
                more = True
                break
            if cut:
                last = name[:cut] + "\U0010ffff"
                told[name[:cut]] = f"<CommonPrefixes><Prefix>{shown(name[:cut])}</Prefix></CommonPrefixes>"
            else:
                data, tag = self.objects.data[f"{bucket}/{name}"]
                last = name
                told[name] = (
                    f"<Contents><Key>{shown(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    f"<ETag>{escape(tag)}</ETag><Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        marker = f"<NextMarker>{shown(last)}</NextMarker>" if more else ""
        encoding = "<EncodingType>url</EncodingType>" if shown is quote else ""
        return xml(
            "ListBucketResult",
            f"<Name>{bucket}</Name><Prefix>{shown(prefix)}</Prefix><KeyCount>{len(told)}</KeyCount>"
            f"<MaxKeys>{most}</MaxKeys>{encoding}<IsTruncated>{str(more).lower()}</IsTruncated>{token}{marker}"
            + "".join(told.values()),
        )

    def in_parts(self, request: web.Request, name: str, body: bytes) -> web.Response:
        bucket, _, key = name.partition("/")
        if "uploads" in request.query:
            upload = uuid.uuid4().hex
            self.objects.parts[upload] = {}
            told = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
            return xml("InitiateMultipartUploadResult", told)
        upload = request.query["uploadId"]
        if request.method == "PUT":
            self.objects.parts[upload][int(request.query["partNumber"])] = body
            return web.Response(headers={"ETag": f'"{upload}-{request.query["partNumber"]}"'})
        parts = self.objects.parts.pop(upload, {})
        if request.method == "DELETE":
            return web.Response(status=204)
        if request.headers.get("If-None-Match") and name in self.objects.data:
            return failure(412, "PreconditionFailed")
        tag = self.objects.put(name, b"".join(parts[number] for number in sorted(parts)))
        told = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><ETag>{escape(tag)}</ETag>"
        return xml("CompleteMultipartUploadResult", told)

    async def put(self, request: web.Request, name: str, body: bytes) -> web.Response:
        if "x-amz-copy-source" in request.headers:
            return failure(501, "NotImplemented")
        if request.headers.get("If-None-Match") and name in self.objects.data:
            return failure(412, "PreconditionFailed")
        return web.Response(headers={"ETag": self.objects.put(name, body)})

    async def delete(self, request: web.Request, name: str, body: bytes) -> web.Response:
        self.objects.data.pop(name, None)
        return web.Response(status=204)

    async def get(self, request: web.Request, name: str, body: bytes) -> web.StreamResponse:
        if name not in self.objects.data:
            return failure(404, "NoSuchKey")
        data, tag = self.objects.data[name]
        headers = {"ETag": tag, "Last-Modified": self.began, "Accept-Ranges": "bytes"}
        asked = request.http_range if "Range" in request.headers else slice(0, None)
        begin, end, _ = asked.indices(len(data))
        if "Range" in request.headers:
            if begin >= len(data):
                return failure(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        status = 206 if "Range" in request.headers else 200
        reply = web.StreamResponse(status=status, headers=headers)
        reply.content_type = "application/octet-stream"
        reply.content_length = end - begin
        await reply.prepare(request)
        if request.method == "GET":
            whole = memoryview(data)
            for at in range(begin, end, PIECE):
                piece = whole[at : min(at + PIECE, end)]
                await self.down.carry(len(piece))
                await reply.write(piece)
        await reply.write_eof()
        return reply


def decoded(body: bytes) -> Iterator[bytes]:
    """The data of a body sent in signed chunks: each is `size in hex;chunk-signature=…`, its bytes, a line end."""
    at = 0
    while at < len(body):
        end = body.index(b"\r\n", at)
        size = int(body[at:end].partition(b";")[0], 16)
        if not size:
            return
        yield body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2


def xml(name: str, inner: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{name}>'
    return web.Response(text=text, content_type="application/xml")


def failure(status: int, code: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")


async def serve() -> None:
    store = Store()
    app = web.Application(client_max_size=8 << 30)
    app.router.add_route("*", "/{path:.*}", store.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
