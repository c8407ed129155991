"""URLs as text."""

import pytest

from dataset_store.core.urls import has_secrets, redacted, require_whole_scheme
from dataset_store.errors import InvalidRequest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("s3:/bucket/x", "s3://bucket/x"),
        ("nope:/bucket/x", "nope://bucket/x"),
        ("S3:/bucket", "S3://bucket"),
        ("file:/data/x", "file:///data/x"),
        ("sftp:/user:SECRET@host/x", "sftp://host/x"),
    ],
)
def test_a_url_that_lacks_a_slash_is_refused_and_the_likely_one_is_named(typed, meant):
    with pytest.raises(InvalidRequest, match="lacks a slash") as caught:
        require_whole_scheme(typed)
    assert f"Did you mean {meant}?" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["s3://bucket/x", "file:///x", "/data/s3:/x", "./s3:/x", "s3:", "a b:/x", "1:/x", "c:/x", ""]
)
def test_whole_urls_and_paths_pass(url):
    require_whole_scheme(url)


@pytest.mark.parametrize("url", ["sftp://u:SECRET@h/x", "s3://key:SEC/RET@bucket/x", "https://h/x?sig=SECRET"])
def test_nothing_secret_is_left_of_a_url_that_is_shown(url):
    assert has_secrets(url)
    assert "SEC" not in redacted(url)
