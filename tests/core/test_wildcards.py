"""Wildcards of folders find what pathlib finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.wildcards import globbed, matching

PATHS = ["top.jpg", "labels.csv", "train/1.jpg", "train/2.jpg", "train/deep/3.jpg", "val/4.jpg", "val/.hidden"]
NAMES = st.sampled_from(["a", "b", "ab", "*", "?", "a*", "[ab]", "[!a]", "**"])


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize(
    "pattern",
    ["*", "*.jpg", "**/*.jpg", "**/*", "train/**/*.jpg", "deep/*.jpg", "train/*.jpg", "train", "*/*.jpg", "./*.csv"],
)
@pytest.mark.parametrize("prefix", ["", "**/", "t*/", "[tv]*/", "?rain/", "TRAIN/", "train//"])
def test_a_pattern_finds_the_files_that_pathlib_finds(tmp_path, prefix, pattern, recursive):
    for path in PATHS:
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True, parents=True)
        file.touch()
    pattern = prefix + pattern
    found = tmp_path.rglob(pattern) if recursive else tmp_path.glob(pattern)
    expected = {str(one.relative_to(tmp_path)) for one in found if one.is_file()}
    assert {
        path for path, is_found in zip(PATHS, globbed(PATHS, pattern, recursive=recursive), strict=True) if is_found
    } == expected


@pytest.mark.parametrize(("pattern", "expected"), [("train/**", 3), ("**", 7), ("", 7)])
def test_any_folders_as_the_last_name_are_all_files_below(pattern, expected):
    assert sum(globbed(PATHS, pattern, recursive=False)) == expected


@given(st.lists(NAMES, min_size=1, max_size=5), st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=6))
def test_looking_at_the_last_names_only_finds_what_trying_every_way_finds(pattern, names):
    def fits(wanted, left):
        if not wanted:
            return not left
        if wanted[0] == "**":
            return any(fits(wanted[1:], left[start:]) for start in range(len(left)))
        return bool(left) and matching([left[0]], wanted[0], recursive=False)[0] and fits(wanted[1:], left[1:])

    wanted = [*pattern, "*"] if pattern[-1] == "**" else pattern
    assert globbed(["/".join(names)], "/".join(pattern), recursive=False) == [fits(wanted, names)]


def test_a_path_of_many_names_and_a_pattern_of_many_stars_are_compared_at_once():
    path = "/".join(["a"] * 500)
    assert globbed([path], "**/a/a/a/b", recursive=True) == [False]
    assert globbed([path], "a/**/a", recursive=False) == [True]
