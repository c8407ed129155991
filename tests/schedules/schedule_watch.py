"""What happened in a schedule: how often it met the situations that the rules of the protocol are for."""

from contextlib import ExitStack, contextmanager
from unittest import mock

from dataset_store.core.packfile import PackRef
from dataset_store.dataset.drafts import committing
from dataset_store.dataset.uploads import rechecking
from dataset_store.storage import collecting

REQUIRED = (
    "gc lost a slot",
    "a parent died between upload and commit",
    "a hit's pack was condemned",
    "a frame outside the relocation rows was hit",
    "a repack was chained on another",
)
"""Each must be met in at least one schedule in a hundred."""


@contextmanager
def watched(world):
    """Count into the world what the code comes upon; it decides nothing."""
    surveys, attempts, still_stands = collecting.survey, [], committing.still_stands

    def survey(store, listed, *arguments, **options):
        if any(one is listed for one in attempts):
            world.count("gc lost a slot")
        attempts.append(listed)
        return surveys(store, listed, *arguments, **options)

    def standing(workspace, draft, sent):
        if not rechecking.base_is_live(workspace, draft):
            world.count("a parent died between upload and commit")
        stands = still_stands(workspace, draft, sent)
        if not stands:
            note_fallen(world, workspace, draft, sent)
        return stands

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(collecting, "survey", survey))
        stack.enter_context(mock.patch.object(committing, "still_stands", standing))
        yield


def note_fallen(world, workspace, draft, sent):
    now = workspace.store.standings.now()
    segments = draft.changes.entries.segments
    _, stands = now.segments(segments)
    own = {PackRef(number, name) for number, name in sent.packs}
    fallen = {segments.packs[at] for at in segments.pack[~stands].tolist()}
    if fallen - own:
        world.count("a hit's pack was condemned")
    if any(pack in now.relocations for pack in fallen):
        world.count("a frame outside the relocation rows was hit")
