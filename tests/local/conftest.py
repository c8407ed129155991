"""What tests of this machine's part share."""

import pytest

from dataset_store.local import batches


@pytest.fixture(params=["compiled", "plain"])
def both_ways(request, monkeypatch):
    """Batches of short files are read by compiled code, or file by file."""
    if request.param == "plain":
        monkeypatch.setattr(batches, "_files", None)
    elif batches._files is None:
        pytest.skip("not compiled here")
