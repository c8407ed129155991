"""Versions between stores, as users ask for it: push, pull, clone.

ClearML has no such methods: its server is the only place where a dataset is. The names are git's.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from dataset_store.core.catalog import Query
from dataset_store.core.tag_filters import parse_tags
from dataset_store.dataset import offline
from dataset_store.dataset.annotations.limits import require_name_text, version_text
from dataset_store.dataset.handle import Handle
from dataset_store.dataset.labelling import labels as tags_of
from dataset_store.dataset.workspace import Workspace, open_workspace
from dataset_store.errors import InvalidRequest, StoreNotFound

if TYPE_CHECKING:
    from dataset_store.dataset.transfers.transferring import Terms, TransferReport

__all__ = ["Sharing", "target_workspace", "terms_of"]


class Sharing(Handle):
    """What brings versions from one store into another, where they keep their ids."""

    __slots__ = ()

    def push(
        self,
        target_store: str,
        history: bool = True,
        labels: bool = False,
        as_name: str | None = None,
        as_project: str | None = None,
        renumber: bool = False,
        output_uri: str | None = None,
        dry_run: bool = False,
        show_progress: bool = True,
    ) -> "TransferReport":
        """Send this version, and the ancestors that it lacks, to another store.

        It has the same id there, the same parents, files, number and labels. What the other store has already is not
        sent: versions, and of others the contents and the parts of trees. A call that was broken off is repeated and
        goes on where it was.

        Args:
            target_store: The other store's URL or path; begun if there is none.
            history: With False only this version goes; its parents are then named there, and absent.
            labels: Give versions that are there already the tags, description, metadata and state that they have
                here. Without it only what is new of metadata, and that one was published or archived, follows.
            as_name: What the dataset is to be called there; one that is called so already gets the versions.
            as_project: Its project there.
            renumber: Where another version has its number there, give it the next free one instead of failing.
            output_uri: A URL or path where packs go; by default where those of the last parent lie there, else the
                other store.
            dry_run: Only tell what would be sent. Nothing is written, also no store begun.
            show_progress: Show bars, where standard error is a terminal.

        Returns:
            What became of each version, parents first.

        Raises:
            NotFinal: It is not finalized.
            VersionExists: Another version has its number there.
            Conflict: Another dataset has its name there, or it was deleted there.
            CorruptObject, ObjectMissing: This store is damaged; the versions that need what is lost were not made.
            StoreLacksCreateIfAbsent, StorageFailed: The other store refused; what arrived stays.
            InvalidRequest: It is the same store, or offline mode is on.
        """
        from dataset_store.dataset.transfers.transferring import transfer

        offline.require_online("push a version")
        version = self._final()
        terms = terms_of(history, labels, as_name, as_project, renumber, output_uri, dry_run)
        target = target_workspace(target_store, dry_run=dry_run)
        return transfer(self._workspace, target, [version.id], terms, show_progress=show_progress)

    @classmethod
    def pull(
        cls,
        source_store: str,
        dataset_id: str | None = None,
        dataset_project: str | None = None,
        dataset_name: str | None = None,
        dataset_tags: Sequence[str] | str | None = None,
        dataset_version: str | float | None = None,
        history: bool = True,
        labels: bool = False,
        as_name: str | None = None,
        as_project: str | None = None,
        renumber: bool = False,
        output_uri: str | None = None,
        show_progress: bool = True,
    ) -> Self:
        """Fetch a version, and the ancestors that are not here, from another store into the store in force.

        Args:
            source_store: The other store's URL or path.
            dataset_id: The version there; excludes the project, name, tags and number.
            dataset_project: As in `get`, of the other store.
            dataset_name: As in `get`.
            dataset_tags: As in `get`.
            dataset_version: As in `get`.
            history: As in `push`.
            labels: As in `push`.
            as_name: As in `push`: what it is to be called here.
            as_project: As in `push`.
            renumber: As in `push`.
            output_uri: As in `push`.
            show_progress: As in `push`.

        Returns:
            The version, in the store in force.

        Raises:
            StoreNotFound: There is no store at that URL.
            DatasetNotFound: Nothing there matches.
            InvalidRequest: Nothing was asked for, or an id together with a name.
            Exception: As `push`.
        """
        from dataset_store.dataset.transfers.transferring import chosen, transfer

        offline.require_online("pull a version")
        if dataset_id and any((dataset_project, dataset_name, dataset_tags, dataset_version)):
            raise InvalidRequest("An id and a project, name, version or tags were given.", "Give one or the other.")
        source = open_workspace(source_store)
        query = Query(
            project=dataset_project,
            name=dataset_name,
            version=version_text(dataset_version) or None,
            tags=parse_tags(tags_of(dataset_tags)),
        )
        (found,) = chosen(source, [dataset_id] if dataset_id else [], query, every=False)
        terms = terms_of(history, labels, as_name, as_project, renumber, output_uri, dry_run=False)
        target = open_workspace(create=True)
        transfer(source, target, [found], terms, show_progress=show_progress)
        return cls(target, None, found)

    @classmethod
    def clone_store(
        cls,
        source_store: str,
        target_store: str | None = None,
        dataset_project: str | None = None,
        dataset_name: str | None = None,
        dataset_tags: Sequence[str] | str | None = None,
        labels: bool = False,
        output_uri: str | None = None,
        dry_run: bool = False,
        show_progress: bool = True,
    ) -> "TransferReport":
        """Bring every version of a store, or every one that matches, with its history into another store.

        The same call again brings what is new since. The other store has an id, a log and packs of its own.

        Args:
            source_store: The URL or path of the store to take from.
            target_store: That of the store to bring them to, begun if there is none; by default the store in force.
            dataset_project: Only versions in this project, and what they come from.
            dataset_name: Only versions of datasets called so, and what they come from.
            dataset_tags: Only versions with one of these tags, and what they come from.
            labels: As in `push`.
            output_uri: As in `push`.
            dry_run: As in `push`.
            show_progress: As in `push`.

        Returns:
            What became of each version, parents first.

        Raises:
            StoreNotFound: There is no store to take from.
            Exception: As `push`.
        """
        from dataset_store.dataset.transfers.transferring import chosen, transfer

        offline.require_online("clone a store")
        source = open_workspace(source_store)
        query = Query(
            project=dataset_project,
            name=dataset_name,
            tags=parse_tags(tags_of(dataset_tags)),
            include_archived=True,
        )
        found = chosen(source, [], query, every=True)
        terms = terms_of(True, labels, None, None, False, output_uri, dry_run)
        target = target_workspace(target_store, dry_run=dry_run)
        return transfer(source, target, found, terms, show_progress=show_progress)


def terms_of(
    history: bool,
    labels: bool,
    as_name: str | None,
    as_project: str | None,
    renumber: bool,
    output: str | None,
    dry_run: bool,
) -> "Terms":
    """The terms of a transfer, its names checked.

    Raises:
        InvalidRequest: A log entry cannot hold a name.
    """
    from dataset_store.dataset.transfers.transferring import Terms

    if as_name is not None:
        require_name_text("name", as_name)
    if as_project:
        require_name_text("project", as_project)
    return Terms(history, labels, as_name, as_project, renumber, output, dry_run)


def target_workspace(store: str | None, *, dry_run: bool) -> Workspace | None:
    """The store to bring versions to, begun if there is none; in a dry run None then."""
    if not dry_run:
        return open_workspace(store, create=True)
    try:
        return open_workspace(store)
    except StoreNotFound:
        return None
