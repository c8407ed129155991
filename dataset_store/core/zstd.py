"""Zstandard frames that say how long they are, expanded within bounds; the library is loaded with the first of them.

What a frame would take in memory is known before it is expanded: the library heeds no limit for a frame that declares
its size, so the declaration is compared with what the caller expects.
"""

from typing import TYPE_CHECKING, Final

from dataset_store.core.digest import Buffer

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

__all__ = ["DamagedFrame", "Zstd"]

_MAGIC: Final = b"\x28\xb5\x2f\xfd"


class DamagedFrame(Exception):
    """Bytes are not the frame that was expected; the message goes on from the name of what holds them."""


class Zstd:
    """Compresses at one level and expands. Belongs to one thread.

    Args:
        level: Of compression.
        largest_window: Bytes that a frame may ask to look back.
    """

    __slots__ = ("_compressor", "_decompressor", "_largest_window", "_level")

    def __init__(self, level: int, largest_window: int) -> None:
        self._level = level
        self._largest_window = largest_window
        self._compressor: ZstdCompressor | None = None
        self._decompressor: ZstdDecompressor | None = None

    def compress(self, plain: Buffer) -> bytes:
        """The frame of some bytes."""
        if self._compressor is None:
            from zstandard import ZstdCompressor  # noqa: PLC0415

            self._compressor = ZstdCompressor(level=self._level)
        return self._compressor.compress(plain)

    def expand(self, frame: Buffer, length: int) -> bytes:
        """The plain bytes of a frame, which must be so many.

        Raises:
            DamagedFrame: It is no whole frame of that length.
        """
        import zstandard  # noqa: PLC0415

        if self._decompressor is None:
            self._decompressor = zstandard.ZstdDecompressor(max_window_size=self._largest_window)
        try:
            declared = zstandard.get_frame_parameters(frame)
            if frame[:4] != _MAGIC or declared.content_size != length:
                raise DamagedFrame("declares two different plain lengths")
            if declared.window_size > self._largest_window:
                raise DamagedFrame("asks for too large a window")
            plain = self._decompressor.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DamagedFrame(f"cannot be decompressed ({error})") from error
        if len(plain) != length:
            raise DamagedFrame("is shorter than it declares")
        return plain
