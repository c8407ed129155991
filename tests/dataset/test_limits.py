"""Names, numbers, tags and descriptions that no log entry can hold are refused when they are given."""

import pytest

from dataset_store import Dataset
from dataset_store.errors import InvalidRequest

BAD = [
    {"dataset_name": "x" * 2_000},
    {"dataset_name": "\udcff"},
    {"dataset_project": "p" * 2_000},
    {"dataset_tags": [""]},
    {"dataset_tags": ["t" * 2_000]},
    {"dataset_tags": [str(number) for number in range(2_000)]},
    {"dataset_tags": ["fine", "\udcff"]},
    {"dataset_version": "1" * 200},
    {"description": "d" * 70_000},
    {"description": "\x01" * 20_000},
    {"description": "\udcff"},
    {"description": "d" * 40_000, "dataset_tags": [f"{number:01000}" for number in range(25)]},
]


@pytest.mark.parametrize("labels", BAD, ids=" and ".join)
def test_labels_that_no_entry_can_hold_are_refused_before_there_is_a_draft(home, labels):
    with pytest.raises(InvalidRequest) as caught:
        Dataset.create(**{"dataset_name": "d"} | labels)
    assert len(str(caught.value)) < 500
    assert not list((home / "own").rglob("journal"))


def test_the_longest_labels_that_are_accepted_can_be_finalized(home):
    name, project, number = "n" * 1_024, "p" * 1_024, "1" * 128
    tags = [f"{number:040}" for number in range(300)]
    text = "d" * 40_000
    dataset = Dataset.create(name, project, tags, dataset_version=number, description=text)
    dataset.finalize(auto_upload=True)
    found = Dataset.get(dataset_project=project, dataset_name=name)
    assert (found.version, found.tags) == (number, tags)


def test_tags_given_to_a_draft_or_a_version_later_are_checked_too(home):
    draft = Dataset.create(dataset_name="d", dataset_tags=["kept"])
    for final in (False, True):
        for bad in ([""], ["t" * 2_000], ["\udcff"], [str(number) for number in range(2_000)]):
            with pytest.raises(InvalidRequest):
                draft.tags = bad
        assert draft.tags == ["kept"]
        if not final:
            draft.finalize(auto_upload=True)
