"""What tests of this machine's part share."""

import pytest

from dataset_store.local import reading


@pytest.fixture(params=["compiled", "plain"])
def both_ways(request, monkeypatch):
    """Batches of short files are read by compiled code, or file by file."""
    if request.param == "plain":
        monkeypatch.setattr(reading, "_files", None)
    elif reading._files is None:
        pytest.skip("not compiled here")
