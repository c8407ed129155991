"""Link records: what a version keeps of a file that lies elsewhere.

The record is the content of an external link's entry, and unless the file's own bytes were hashed its hash is the
entry's content id; so whatever the source tells of a change is a change of the version.
"""

import msgspec

from dataset_store.core.frames import NEXT_STEP, require
from dataset_store.errors import CorruptObject, InvalidRequest

__all__ = ["MOST_URL_BYTES", "Link", "decode_link", "encode_link"]

MOST_URL_BYTES = 8_192
_MOST_ETAG_BYTES = 1_024


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a file lies, its size in bytes, and what its source tells its states apart by.

    `etag` is the source's entity tag without quotes, or where it only knows times `mtime:` and ns since 1970; None
    where it tells neither.
    """

    etag: str | None
    size: int
    url: str


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Link)


def encode_link(link: Link) -> bytes:
    """The canonical bytes of a link record.

    Raises:
        InvalidRequest: The URL or the tag is too long, or not text.
    """
    try:
        lengths = len(link.url.encode()), len((link.etag or "").encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"The URL {link.url!r} is not text.", "Percent-encode what is not UTF-8.") from error
    if lengths[0] > MOST_URL_BYTES or lengths[1] > _MOST_ETAG_BYTES:
        raise InvalidRequest(
            f"The URL {link.url[:100]!r}… is too long to be linked.", f"At most {MOST_URL_BYTES:,} bytes can be."
        )
    return _encoder.encode(link)


def decode_link(data: bytes | memoryview, *, what: str) -> Link:
    """A link record.

    Raises:
        CorruptObject: The bytes are none, or not canonical.
    """
    try:
        link = _decoder.decode(data)
    except (ValueError, RecursionError) as error:  # of JSON, or of UTF-8 in it
        raise CorruptObject(f"{what} is no link record.", NEXT_STEP) from error
    require(0 <= link.size < 1 << 63 and bool(link.url), what, "is no link record")
    return link
