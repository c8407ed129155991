"""Packs written into a storage: frames are gathered into packs, and each becomes one object.

Promises: a place is handed out once and never changes, and holds as soon as the pack was put. Memory is bounded by one
batch and a sixteenth of a pack where the storage takes an object piece by piece, else by the pack that fills and those
on their way: one, or some 80 MiB where several requests are wanted.

Never: lists, deletes, repeats what failed, or decides which frames are needed. A writer belongs to one thread.
"""

import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from threading import Thread
from typing import Final

from dataset_store.core.digest import PackName, StoreId
from dataset_store.core.frames import EncodedFrame
from dataset_store.core.packfile import PACK_LIMIT, Footer, PackBuilder, PackRef, Place, pack_key
from dataset_store.storage.backend import Backend, Key, ObjectWriter
from dataset_store.storage.ended_frames import let_go

__all__ = ["PackWriter"]

_STREAMED: Final = 64 << 20
_HELD: Final = 40 << 20
_WORTH_A_THREAD: Final = 4 << 20
_WRITTEN_AT_ONCE: Final = 1 << 20
_UNDER_WAY: Final = 80 << 20
"""Bytes of packs that may be on their way at once, where that is more than one pack."""


class PackWriter:
    """Gathers frames into packs of about `target` bytes and puts them into one storage.

    Args:
        backend: The storage.
        store_id: The store that the packs belong to.
        storage: The number of that storage, 0 for the store's own root.
        new_name: Draws a fresh random pack name.
        on_written: Called once for each pack, after it was put.
        target: Bytes at which a pack is full; only the last frame of a pack goes beyond. By default 64 MiB, and 40
            where a storage takes an object by one request, so that packs are held.
    """

    def __init__(
        self,
        backend: Backend,
        store_id: StoreId,
        storage: int,
        new_name: Callable[[], PackName],
        *,
        on_written: Callable[[PackRef, Footer], object] = lambda _ref, _footer: None,
        target: int | None = None,
    ) -> None:
        self._backend = backend
        self._store_id = store_id
        self._storage = storage
        self._new_name = new_name
        self._on_written = on_written
        self._target = target or (_STREAMED if backend.traits.streams else _HELD)
        self._at_once = max(1, min(backend.traits.at_once, _UNDER_WAY // self._target))
        self._packs: deque[_Pack] = deque()
        """Packs not put yet; all but the last take no more frames."""

    def append(self, frames: Sequence[EncodedFrame], *, together: bool = False) -> list[Place]:
        """Take frames; the place of each, valid once its pack was put, at the latest by `flush`.

        With `together` they come to stand one after another in one pack, which may grow beyond its target for it.

        Full packs are put while the next one fills; once that is full too, this waits for the first. Frames come in
        the order of their files' keys, and data before segment lists before nodes: a frame of an earlier kind than the
        one before it begins another pack.

        Raises:
            StorageFailed: A pack could not be written. Neither `frames` nor what was not told of as written can be
                counted on; this writer fails from now on, and another begins again.
        """
        self._put_full()
        return [self._place(frame, begin=not (together and row)) for row, frame in enumerate(frames)]

    def flush(self) -> None:
        """Put all that was taken; the next frame begins another pack.

        Raises:
            StorageFailed: As `append`.
        """
        while self._packs:
            for pack in islice(self._packs, self._at_once if self._at_once > 1 else 0):
                pack.begin_end()
            self._finish_first()

    def _place(self, frame: EncodedFrame, *, begin: bool) -> Place:
        """Put a frame behind the others; `begin` a pack for it where the last one is full."""
        if not self._packs or not self._packs[-1].takes(frame, self._target if begin else PACK_LIMIT):
            builder = PackBuilder(self._store_id, self._new_name())
            self._packs.append(_Pack(builder, self._backend, self._target // 16))
        pack = self._packs[-1]
        offset = pack.append(frame)
        return Place(PackRef(self._storage, pack.name), offset, len(frame.data), frame.plain)

    def _put_full(self) -> None:
        """See to it that no more packs that are complete wait than may be on their way, and that they are."""
        while complete := self._complete():
            if complete <= self._at_once and self._packs[0].size >= _WORTH_A_THREAD:
                for pack in islice(self._packs, complete):
                    pack.begin_end()
                return
            self._finish_first()

    def _complete(self) -> int:
        """How many packs take no more frames: all but the last, and that one if it is full."""
        if not self._packs:
            return 0
        return len(self._packs) - self._packs[-1].is_open(self._target)

    def _finish_first(self) -> None:
        """Wait until the first pack was put."""
        pack = self._packs[0]
        pack.end()
        self._packs.popleft()
        self._on_written(PackRef(self._storage, pack.name), pack.footer())


class _Pack:
    """One pack on its way into a storage: from some length on it is written while it grows.

    Its end, which waits for the storage, is in a thread of its own from `begin_end` on, or is made by whoever asks for
    it. The thread does not outlive the process, whose sudden end a pack survives like any other object.

    Args:
        builder: Of the pack, still empty.
        backend: Where it goes.
        least: Bytes from which on it is written piece by piece; a shorter one is put.
    """

    def __init__(self, builder: PackBuilder, backend: Backend, least: int) -> None:
        self.name = builder.name
        self._builder = builder
        self._backend = backend
        self._key = Key(pack_key(builder.name))
        self._least = least
        self._writer: ObjectWriter | None = None
        self._is_ending = False
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    @property
    def size(self) -> int:
        """Bytes, if it ended now."""
        return self._builder.size

    def footer(self) -> Footer:
        """Of the pack, complete once its end was begun."""
        return self._builder.footer()

    def is_open(self, target: int) -> bool:
        """Whether frames may join: its end was not begun, and it is shorter than `target`."""
        return not self._is_ending and self._builder.size < target

    def takes(self, frame: EncodedFrame, target: int) -> bool:
        """Whether it is open, and it is the frame's turn."""
        return self.is_open(target) and self._builder.takes(frame)

    def append(self, frame: EncodedFrame) -> int:
        """Take a frame; its offset. Raises what the storage raises."""
        self._raise_again()
        offset = self._builder.append(frame)
        if self._builder.waiting >= min(self._least, _WRITTEN_AT_ONCE) and self._builder.size >= self._least:
            self._do(self._write)
            self._raise_again()
        return offset

    def begin_end(self) -> None:
        """Begin the end in a thread, once; where the system gives none, whoever asks for the end makes it."""
        self._is_ending = True
        if self._thread is None:
            thread = Thread(target=self._run, name="put", daemon=True)
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def end(self) -> None:
        """Return when the pack is durable. Raises what the storage raises, each time it is asked."""
        self._is_ending = True
        if self._thread is None:
            self._run()
        else:
            self._thread.join()
        self._raise_again()

    def _write(self) -> None:
        if self._writer is None:
            self._writer = self._backend.open_writer(self._key)
        self._writer.write(self._builder.take())

    def _run(self) -> None:
        """Write the rest, and make the object of it; what goes wrong is raised where the end is waited for."""
        if self._error is None:
            self._do(self._finish)

    def _finish(self) -> None:
        if self._writer is None:
            self._backend.put(self._key, self._builder.finish())
        else:
            self._writer.write(self._builder.finish())
            self._writer.finish()

    def _do(self, step: Callable[[], object]) -> None:
        """Do it; what goes wrong is kept, and holds nothing of the pack, which is of no use then."""
        of_caller = sys.exc_info()[1]
        try:
            step()
        except BaseException as error:  # noqa: BLE001
            let_go(error, of_caller)
            self._error = error
            self._builder = PackBuilder(self._builder.store_id, self.name)

    def _raise_again(self) -> None:
        if self._error is not None:
            raise self._error
