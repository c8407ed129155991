"""Files over what is no file read as the bytes that they stand for."""

import io

from hypothesis import given
from hypothesis import strategies as st

from dataset_store.storage.raw_files import PiecesFile


@given(st.lists(st.binary(max_size=20)), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 30)), max_size=9))
def test_an_object_that_is_sent_as_a_file_reads_as_its_pieces_joined(pieces, reads):
    body, whole = PiecesFile(pieces), b"".join(pieces)
    assert len(body) == len(whole)
    assert body.read() == whole
    for at, count in reads:
        assert body.seek(at) == at
        assert body.read(count) == whole[at : at + count]
        assert body.tell() == at + len(whole[at : at + count])
    assert body.seek(0, io.SEEK_END) == len(whole)
