"""Paths and keys: what is accepted, what is refused, and how keys are ordered."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataset_store.core import paths as path_rules
from dataset_store.core.paths import (
    MAX_COMPONENTS,
    MAX_PATH_BYTES,
    ROOT,
    PathKey,
    check_key,
    check_key_tables,
    check_keys,
    child_key,
    directory_key,
    link_stays_inside,
    parent_key,
    portability_problems,
    starts_below,
    to_key,
    to_path,
    to_text,
    to_texts,
)
from dataset_store.errors import CorruptObject, InvalidPath

names = st.binary(min_size=1, max_size=6).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
hostile = st.lists(st.sampled_from([b"a", b"b", b".", b"..", b"/", b"\0", b"\1", b"\xff"]), max_size=6).map(b"".join)


def is_key(raw: bytes) -> bool:
    try:
        check_key(raw)
    except CorruptObject:
        return False
    return True


@given(paths)
def test_a_path_and_its_key_are_the_same_thing_in_two_forms(path):
    key = to_key(path)
    assert to_path(key) == path
    assert to_key(to_text(key)) == key
    assert check_key(key) == key


@given(st.lists(paths))
def test_keys_in_byte_order_are_paths_in_order_of_their_names(some):
    assert [to_path(key) for key in sorted(map(to_key, some))] == sorted(some, key=lambda path: path.split(b"/"))


@given(st.lists(paths.map(to_key)), paths.map(to_key))
def test_what_lies_below_a_directory_is_one_range_of_keys(keys, directory):
    below = {key for key in keys if starts_below(key, directory)}
    assert below == {key for key in keys if directory + b"\0" <= key < directory + b"\1"}
    assert below == {key for key in keys if to_path(key).startswith(to_path(directory) + b"/")}


@given(names, paths.map(to_key))
def test_the_parent_of_a_child_is_its_directory(name, directory):
    assert parent_key(child_key(directory, name)) == directory
    assert parent_key(child_key(ROOT, name)) == ROOT == parent_key(ROOT)
    assert starts_below(child_key(directory, name), ROOT)
    assert not starts_below(directory, directory)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "nul\0byte",
        "\ud800",
        b"n" * 256,
        "é" * 128,
        b"/".join([b"n" * 255] * 65),
        b"/".join([b"n"] * 1001),
    ],
)
def test_a_path_that_no_store_may_hold_is_refused_by_name(path):
    with pytest.raises(InvalidPath) as caught:
        to_key(path)
    assert repr(path[:200])[2:-1] in str(caught.value)
    assert caught.value.next_step


def test_the_longest_paths_are_accepted():
    assert to_key(b"/".join([b"n"] * MAX_COMPONENTS)).count(b"\0") == MAX_COMPONENTS - 1
    assert len(to_key(b"/".join([b"n" * 255] * 64))) == MAX_PATH_BYTES - 1
    assert to_key("é" * 127) == to_key(b"\xc3\xa9" * 127)


def test_names_that_are_not_utf_8_survive_as_text():
    assert to_text(to_key(b"bad\xff/name")) == "bad\udcff/name"
    assert to_key("bad\udcff/name") == b"bad\xff\0name"


def test_a_backslash_is_an_ordinary_character():
    assert to_key("a\\..\\b") == b"a\\..\\b"


@given(hostile)
@example(b"a/b")
def test_a_stored_key_is_valid_only_if_a_path_has_it(raw):
    try:
        expected = b"/" not in raw and to_key(raw.replace(b"\0", b"/")) == raw
    except InvalidPath:
        expected = False
    assert is_key(raw) == expected


@given(st.lists(hostile, max_size=5))
@example([b"a", b"a\0b"])
@example([b"a", b"a\1b", b"a\0b"])
@example([b"n" * 256])
@example([b"\0".join([b"n"] * 1001)])
@example([b"\0".join([b"n" * 255] * 65)])
def test_many_keys_are_checked_by_the_same_rules_as_one(keys):
    in_order = all(low < high and not starts_below(PathKey(high), PathKey(low)) for low, high in pairwise(keys))
    if in_order and all(map(is_key, keys)):
        assert check_keys(keys) is keys
    else:
        with pytest.raises(CorruptObject):
            check_keys(keys)


@given(st.sets(paths))
def test_sorted_paths_of_files_are_the_keys_of_a_node(some):
    keys = sorted(map(to_key, some))
    files = [key for key in keys if not any(starts_below(key, other) for other in keys)]
    assert check_keys(files) == files


@given(st.sets(paths, min_size=2))
def test_an_ancestor_among_the_keys_is_found(some):
    keys = sorted(map(to_key, some))
    if any(starts_below(key, other) for key in keys for other in keys):
        with pytest.raises(CorruptObject):
            check_keys(keys)


def test_the_message_names_the_two_keys_that_are_out_of_order():
    with pytest.raises(CorruptObject, match="b'c' and b'b'"):
        check_keys([b"a", b"c", b"b", b"d"])


@pytest.mark.parametrize("target", [b"x", b"x/y", b"../x", b"./../x", b"..", b".", b"x/./y/", b"x//y"])
def test_a_link_that_climbs_only_through_real_directories_stays_inside(target):
    assert link_stays_inside(1, target)


@pytest.mark.parametrize("target", [b"", b"/x", b"../../x", b"../..", b"x/../y", b".././../x", b"x\0y", b"x" * 4096])
def test_a_link_that_could_leave_the_folder_is_told_apart(target):
    assert not link_stays_inside(1, target)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("straße", "STRASSE"),
        ("\u212a", "k"),
        ("caf\u00e9", "cafe\u0301"),
        ("A/x", "a/y"),
        ("a/Read", "a/read"),
    ],
)
def test_names_that_differ_only_by_case_or_unicode_form_are_reported_as_a_pair(first, second):
    (problem,) = [p for p in portability_problems([to_key(first), to_key(second)]) if p.reason == "same-name"]
    assert [to_text(key) for key in problem.keys] in ([first, second], [first[0], second[0]])


def test_a_collision_of_directories_is_reported_once():
    keys = [to_key(path) for path in ("A/x", "A/y", "a/x", "a/y")]
    assert [problem.keys for problem in portability_problems(keys)] == [(b"A", b"a")]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("CON", "reserved-name"),
        ("a/nul.txt", "reserved-name"),
        ("lpt1.tar.gz", "reserved-name"),
        ("com¹", "reserved-name"),
        ("end.", "trailing-character"),
        ("end ", "trailing-character"),
        ("a:b", "forbidden-character"),
        ("a\\b", "forbidden-character"),
        ("tab\t", "forbidden-character"),
        (b"bad\xff", "not-utf-8"),
    ],
)
def test_names_that_some_systems_cannot_hold_are_reported(path, reason):
    key = to_key(path)
    (problem,) = portability_problems([key])
    assert (problem.reason, problem.keys) == (reason, (key,))
    assert repr(to_text(key)) in str(problem)


def test_a_directory_with_such_a_name_is_reported_once():
    problems = portability_problems([to_key("aux/a"), to_key("aux/b")])
    assert [(problem.reason, problem.keys) for problem in problems] == [("reserved-name", (b"aux",))]


@pytest.mark.parametrize("path", ["console", "com10", "nul-1", ".hidden", "naïve", "data/a b.txt"])
def test_ordinary_names_are_no_problem(path):
    assert portability_problems([to_key(path)]) == []


@pytest.mark.parametrize(
    ("text", "key"),
    [(None, b""), ("", b""), ("/", b""), (".", b""), ("./images", b"images"), ("/a//b/", b"a\0b"), ("x/./y", b"x\0y")],
)
def test_a_directory_is_named_in_many_ways(text, key):
    assert directory_key(text) == key


@pytest.mark.parametrize("text", ["..", "a/../b", "a\0b", "a/" * 2000 + "b"])
def test_what_is_no_directory_of_a_dataset_is_refused(text):
    with pytest.raises(InvalidPath):
        directory_key(text)


_odd_names = st.sampled_from(
    [
        *b"a|A|b.txt|B.TXT|con|CON.txt|con .x|conx|com1|com0|a.|a |nul\xff|a:b|a\\b|\x01|\x7f|ab|aB|...|LPT9".split(
            b"|"
        ),
        *("\u00e9".encode(), "e\u0301".encode(), b"a|b", b"aux ."),
    ]
)


@given(st.sets(st.lists(_odd_names, min_size=1, max_size=3).map(b"\0".join), max_size=6))
def test_a_look_at_all_names_together_finds_problems_where_one_by_one_does(keys):
    one_by_one = path_rules._problems_one_by_one(sorted(keys))
    assert portability_problems(sorted(keys)) == one_by_one
    if path_rules._is_portable(sorted(keys)):
        assert one_by_one == []


def test_usual_names_are_looked_at_together():
    keys = [to_key(f"Train/{number // 10}/IMG_{number}.JPG") for number in range(100)]
    assert path_rules._is_portable(keys)
    assert path_rules._is_portable([])
    assert not path_rules._is_portable([*keys, to_key("train/x")])


@given(st.lists(paths.map(to_key)))
def test_texts_of_many_keys_are_those_of_each(many):
    assert to_texts(many) == [to_text(key) for key in many]


@given(st.lists(st.lists(st.binary(min_size=1, max_size=4).map(lambda name: name.replace(b"/", b"x")), max_size=4)))
def test_key_tables_are_right_where_each_is(tables):
    def broken(check, *given):
        try:
            check(*given)
        except CorruptObject as error:
            return str(error)
        return None

    alone = [problem for table in tables if (problem := broken(check_keys, table))]
    together = broken(check_key_tables, tables)
    assert bool(together) == bool(alone)
