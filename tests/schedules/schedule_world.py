"""The world of a schedule: one store in memory, and what must hold of it whatever the schedule.

The world follows the log by a fold of its own, which shares nothing with the code that it judges but the decoders of
bytes. It knows what every version must hold, as its maker said before the commit.
"""

from dataclasses import dataclass, field

from schedule import Violation

from dataset_store.core.digest import PackName, hash32
from dataset_store.core.envelope import StoreConfig, encode_config, object_digest
from dataset_store.core.frames import FrameCodec, frame_offsets
from dataset_store.core.log_entries import (
    ArtifactEntry,
    CondemnedEntry,
    DeleteEntry,
    HoldEntry,
    MetadataEntry,
    ReleaseEntry,
    RepackEntry,
    VersionEntry,
    decode_entry,
    decode_pack_list,
)
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import Children
from dataset_store.core.packfile import PACK_HEADER_SIZE, pack_key
from dataset_store.core.segments import decode_segment_list, segment_rows, segments_of
from dataset_store.storage.memory_backend import MemoryBackend

ROW = 60


@dataclass
class Fold:
    """What the log says, row by row."""

    live: dict = field(default_factory=dict)  # version id -> entry
    condemned: set = field(default_factory=set)
    rows: dict = field(default_factory=dict)  # (pack, offset) -> (pack, offset)
    holds: dict = field(default_factory=dict)
    lists: list = field(default_factory=list)  # blobs that the fold itself needs
    metadata: dict = field(default_factory=dict)  # (version id, name) -> blob
    artifacts: dict = field(default_factory=dict)


class World:
    """The store, its log so far, and its laws."""

    def __init__(self, rng):
        self.rng = rng
        self.store = MemoryBackend()
        config = encode_config(StoreConfig(store=rng.randbytes(16).hex(), chunker="gear64-v1/128", tree="v1"))
        self.store.create("config", [config])
        self.config = config
        self.ever = {}  # every pack ever put, by name
        self.frames = {}  # (pack, offset) -> (stored, kind, plain)
        self.log = []
        self.commits = set()
        self.fold = Fold()
        self.expected = {}  # version id -> {key: content id}
        self.twins = {}  # version id -> what several makers of it say, of whom one will be right
        self.named = {}  # version id -> the frames that it names
        self.acknowledged = {}  # version id -> what those who were told of success had made
        self.happened = {}

    def count(self, what):
        self.happened[what] = self.happened.get(what, 0) + 1

    # --- requests ---

    def carry_out(self, request):
        verb, *arguments = request
        if verb in ("get_many", "get_ranges"):
            return getattr(self.store, verb)(arguments[0])
        if verb == "list":
            return list(self.store.list(arguments[0]))
        if verb == "put":
            return self._put(*arguments)
        if verb == "create":
            return self._create(*arguments)
        return self._delete(*arguments)

    def _put(self, key, data):
        name = key.rpartition("/")[2]
        if self.ever.setdefault(name, data) != data:
            raise Violation(f"the pack {name} was put with two contents")
        if name in self.fold.condemned and key not in {row.key for row in self.store.list("packs")}:
            self.count("a condemned pack arrived late")
        self.store.put(key, [data])

    def _create(self, key, data):
        made = self.store.create(key, [data])
        if made and key.startswith("log/"):
            self._append(int(key.rpartition("/")[2]), data)
        return made

    def _delete(self, keys):
        for key in keys:
            name = key.rpartition("/")[2]
            if key.startswith("packs/") and name not in self.fold.condemned:
                raise Violation(f"the pack {name} was deleted, and no entry condemns it")
        self.store.delete_many(keys)

    # --- the log ---

    def _append(self, slot, data):
        entry = decode_entry(data, "an entry")
        before = object_digest(self.log[-1][0] if self.log else self.config)
        if slot != len(self.log) or entry.prev != before:
            raise Violation(f"slot {slot} does not follow the entry before it")
        if entry.commit in self.commits:
            raise Violation(f"commit {entry.commit} stands twice")
        self.commits.add(entry.commit)
        self.log.append((data, entry))
        EFFECTS[type(entry)](self, entry)

    def _version(self, entry):
        self.fold.live[entry.commit] = entry
        self.fold.holds.pop(entry.commit, None)
        self._check_readable(entry)

    def _deletion(self, entry):
        for version_id in entry.versions:
            self.fold.live.pop(version_id, None)

    def _hold(self, entry):
        self.fold.holds.setdefault(entry.hold, set()).update(row.pack for row in entry.packs)

    def _release(self, entry):
        self.fold.holds.pop(entry.hold, None)

    def _metadata(self, entry):
        self.fold.metadata[entry.version, entry.name] = entry.blob

    def _artifact(self, entry):
        self.fold.artifacts[entry.task, entry.name] = entry.blob
        self._check_blobs()

    def _condemned(self, entry):
        packs = self._packs_of(entry)
        held = set().union(*self.fold.holds.values())
        if held & packs:
            raise Violation(f"packs {sorted(held & packs)} were condemned under a standing hold")
        self.fold.condemned |= packs
        self._check_all()

    def _repack(self, entry):
        self.fold.lists.append(entry.table)
        packs = self._packs_of(entry)
        self.fold.condemned |= packs
        moved = self._table(self.blob(entry.table))
        for old, new in self.fold.rows.items():
            if new in moved:
                self.count("a repack was chained on another")
                self.fold.rows[old] = moved[new]
        self.fold.rows |= moved
        self._check_all()

    def _packs_of(self, entry):
        if entry.listed is None:
            return {row.pack for row in entry.packs}
        self.fold.lists.append(entry.listed)
        return {row.pack for row in decode_pack_list(self.blob(entry.listed), "a list")}

    def _table(self, plain):
        rows = [plain[at : at + ROW] for at in range(0, len(plain), ROW)]
        return {
            (row[4:20].hex(), int.from_bytes(row[20:24], "little")): (
                row[32:48].hex(),
                int.from_bytes(row[48:52], "little"),
            )
            for row in rows
        }

    # --- frames ---

    def frame(self, pack, offset):
        """Stored length, kind and plain bytes of a frame of any pack that there ever was."""
        if (pack, offset) not in self.frames:
            if pack not in self.ever:
                raise Violation(f"a frame of the pack {pack} is named, which was never put")
            data, codec = self.ever[pack], FrameCodec()
            for at, stored in frame_offsets(data, PACK_HEADER_SIZE, what="a pack"):
                frame = codec.decode_frame(data[at : at + stored], what="a frame")
                self.frames[pack, at] = stored, frame.kind, bytes(frame.plain)
        if (pack, offset) not in self.frames:
            raise Violation(f"the pack {pack} has no frame at {offset}")
        return self.frames[pack, offset]

    def run(self, pack, offset, stored):
        """The frames that make up a range."""
        found, end = [], offset + stored
        while offset < end:
            found.append((pack, offset))
            offset += self.frame(pack, offset)[0]
        if offset != end:
            raise Violation(f"a place in {pack} ends within a frame")
        return found

    def now(self, frame):
        """Where a frame lies now."""
        if frame[0] in self.fold.condemned:
            moved = self.fold.rows.get(frame)
            if moved is None or moved[0] in self.fold.condemned:
                raise Violation(f"the frame {frame} is needed, was condemned and not moved")
            frame = moved
        return frame

    def blob(self, blob):
        parts = []
        for row in blob.segments:
            plain = b"".join(self.frame(*at)[2] for at in self.run(row.pack, row.offset, row.stored))
            parts.append(plain[row.plain_offset : row.plain_offset + row.plain_length])
        found = b"".join(parts)
        if hash32(found).hex() != blob.id:
            raise Violation("a blob is not what its entry says")
        return found

    def blob_frames(self, blob):
        return [at for row in blob.segments for at in self.run(row.pack, row.offset, row.stored)]

    # --- versions ---

    def frames_of(self, entry):
        """Every frame that a version names, and what its files hold; both never change."""
        if entry.commit not in self.named:
            frames, contents = [(entry.tree.census.place.pack, entry.tree.census.place.offset)], {}
            todo = [(entry.tree.place.pack, entry.tree.place.offset)]
            while todo:
                at = todo.pop()
                frames.append(at)
                node = decode_node(self.frame(*at)[2], "a node")
                if isinstance(node, Children):
                    todo += [(ref.place.pack.name.hex(), ref.place.offset) for ref in node.refs()]
                else:
                    for row in range(len(node)):
                        contents[node.keys[row]] = self._content(node, row, frames)
            blobs = [piece for piece in entry.metadata.values() if not isinstance(piece, str)]
            frames += [at for blob in blobs for at in self.blob_frames(blob)]
            self.named[entry.commit] = frames, contents
        return self.named[entry.commit]

    def _content(self, leaf, row, frames):
        segments = segments_of(leaf, row)
        if leaf.kinds[row] & 0x40:
            place = segments[0]
            (at,) = self.run(place.pack.name.hex(), place.offset, place.stored)
            frames.append(at)
            columns = decode_segment_list(self.frame(*at)[2], int(leaf.sizes[row]), what="a list")
            segments = segment_rows(columns)
        parts = []
        for one in segments:
            run = self.run(one.pack.name.hex(), one.offset, one.stored)
            frames += run
            plain = b"".join(self.frame(*at)[2] for at in run)
            parts.append(plain[one.plain_offset : one.plain_offset + one.plain_length])
        found = hash32(b"".join(parts))
        if found != leaf.content_ids[row].tobytes():
            raise Violation(f"{leaf.keys[row]!r} has other bytes than its content id says")
        return found

    def _check_readable(self, entry):
        frames, contents = self.frames_of(entry)
        for at in frames:
            self._require_there(self.now(at), f"the version {entry.commit}")
        if entry.commit in self.twins:
            self.expected[entry.commit] = next((one for one in self.twins[entry.commit] if one == contents), None)
        if contents != self.expected[entry.commit]:
            raise Violation(f"the version {entry.commit} holds other files than its maker said")

    def _require_there(self, frame, who):
        if self.store.get_many([pack_key(PackName(bytes.fromhex(frame[0])))]) == [None]:
            raise Violation(f"{who} needs the pack {frame[0]}, which is not there")

    def _check_all(self):
        for entry in self.fold.live.values():
            self._check_readable(entry)
        self._check_blobs()

    def _check_blobs(self):
        for blob in self.fold.lists:
            for frame in self.blob_frames(blob):
                if frame[0] in self.fold.condemned:
                    raise Violation("a pack with a list that the fold needs was condemned")
                self._require_there(frame, "the fold")
        kept = [blob for (version, _), blob in self.fold.metadata.items() if blob and version in self.fold.live]
        for blob in [*self.fold.artifacts.values(), *kept]:
            for frame in self.blob_frames(blob):
                self._require_there(self.now(frame), "an artifact or metadata")

    def needed(self):
        """The packs that anything live needs."""
        frames = [at for entry in self.fold.live.values() for at in self.frames_of(entry)[0]]
        kept = [blob for (version, _), blob in self.fold.metadata.items() if blob and version in self.fold.live]
        for blob in [*self.fold.lists, *self.fold.artifacts.values(), *kept]:
            frames += self.blob_frames(blob)
        return {self.now(at)[0] for at in frames} | set().union(*self.fold.holds.values())

    def check_end(self):
        """After a last collection that nothing disturbed."""
        self._check_all()
        there = {row.key.rpartition("/")[2] for row in self.store.list("packs")}
        if there - self.needed():
            raise Violation(f"packs {sorted(there - self.needed())} are never collected")
        for version_id, contents in self.acknowledged.items():
            if version_id not in self.commits:
                raise Violation(f"the acknowledged commit {version_id} is not in the log")
            if any(one != self.expected[version_id] for one in contents):
                raise Violation(f"the commit {version_id} was acknowledged to somebody who had made something else")


EFFECTS = {
    VersionEntry: World._version,
    DeleteEntry: World._deletion,
    HoldEntry: World._hold,
    ReleaseEntry: World._release,
    MetadataEntry: World._metadata,
    ArtifactEntry: World._artifact,
    CondemnedEntry: World._condemned,
    RepackEntry: World._repack,
}
