"""`Dataset`: what users hold. A version being made (a draft of this machine), or a final one.

Names, arguments, defaults and return types are those of ClearML's `Dataset`. What changes a draft is in `making`, what
reads in `reading`, what is said of a version in `labelling`, what brings it to other stores in `sharing`; here is how
versions are begun, found and deleted.
"""

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataset_store.core.catalog import Query
from dataset_store.core.tag_filters import parse_tags
from dataset_store.dataset import offline
from dataset_store.dataset.annotations.limits import require_name_text, version_text
from dataset_store.dataset.labelling import Labelling, labels
from dataset_store.dataset.making import Making
from dataset_store.dataset.reading import Reading
from dataset_store.dataset.sharing import Sharing
from dataset_store.dataset.workspace import Workspace, open_workspace
from dataset_store.errors import DatasetNotFound, InvalidRequest, NotFound, StoreNotFound

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Dataset", "require_one_way"]

_log = logging.getLogger(__name__)


class Dataset(Making, Reading, Labelling, Sharing):
    """One version of a dataset. Made by `create` or `get`, never directly."""

    __slots__ = ()

    @classmethod
    def create(
        cls,
        dataset_name: str | None = None,
        dataset_project: str | None = None,
        dataset_tags: Sequence[str] | None = None,
        parent_datasets: "str | Dataset | Sequence[str | Dataset] | None" = None,
        use_current_task: bool = False,
        dataset_version: str | float | None = None,
        output_uri: str | None = None,
        description: str | None = None,
    ) -> "Dataset":
        """Begin a new version, on this machine: nothing of it is in the store before `upload`.

        The first of a store writes the store's config, after the storage was tried.

        Args:
            dataset_name: The dataset's name; by default the last parent's.
            dataset_project: The project; by default the last parent's, else none.
            dataset_tags: Tags that the version will carry from its first moment.
            parent_datasets: A version or its id, or several, whose entries it begins with; later ones win.
            use_current_task: Record the running task as the producer; outside any, a warning.
            dataset_version: Its version number; by default the next free one at finalize.
            output_uri: A URL or path where the packs of this version go; the log stays in the store. By default where
                those of the last parent lie.
            description: Text kept with the version.

        Raises:
            DatasetNotFound, NotFinal: A parent is not there or not final.
            VersionExists: The version number is taken.
            InvalidRequest: No name is given or implied; or offline mode is on, which knows no parents.
        """
        from dataset_store.dataset.drafts import beginning

        parents = _ids_of(parent_datasets)
        if parents:
            offline.require_online("begin a child")
        workspace = offline.new_session() if offline.is_offline() else open_workspace(create=True)
        versions = [beginning.require_final(workspace, parent) for parent in parents]
        series = workspace.catalog.series(versions[-1].series) if versions else None
        name = beginning.require_name(dataset_name or (series.name if series else None))
        project = dataset_project if dataset_project is not None else (series.project if series else "")
        new = beginning.NewVersion(
            project,
            name,
            version_text(dataset_version),
            tuple(parents),
            tuple(labels(dataset_tags)),
            description,
            use_current_task,
            output_uri,
        )
        draft = beginning.begin(workspace, new)
        return cls(workspace, draft, draft.opened.id)

    @classmethod
    def get(
        cls,
        dataset_id: str | None = None,
        dataset_project: str | None = None,
        dataset_name: str | None = None,
        dataset_tags: Sequence[str] | str | None = None,
        only_completed: bool = False,
        only_published: bool = False,
        include_archived: bool = False,
        auto_create: bool = False,
        writable_copy: bool = False,
        dataset_version: str | float | None = None,
        alias: str | None = None,
        overridable: bool = False,
        shallow_search: bool = False,
        silence_alias_warnings: bool = False,
        **kwargs: object,
    ) -> "Dataset":
        """Find a version.

        By id: without a request where this machine has seen it; a draft of this machine is found too. Else the
        version must match all that is given: where tags are asked for the one finalized last, otherwise the one with
        the highest version number; and where no final version does, the draft that was begun last on this machine.

        Args:
            dataset_id: Excludes the project and name. Empty texts are as if they were not given.
            dataset_project: The project.
            dataset_name: The name.
            dataset_tags: A tag, or several of which any will do; `-` before a tag excludes it, and there are the
                operators `__$all`, `__$or` and `__$not` (see `core/tag_filters.py`).
            only_completed: No drafts.
            only_published: Only published versions.
            include_archived: Archived versions too.
            auto_create: Where nothing matches, begin a version of that name and project, with those tags.
            writable_copy: Begin a child of what was found, with its name, project and tags.
            dataset_version: Exactly this version number.
            alias: Accepted without effect outside a task.
            overridable: Accepted without effect outside a task.
            shallow_search: Accepted without effect: a search is one request however many versions there are.
            silence_alias_warnings: Accepted without effect: there are none.
            **kwargs: Those that begin with an underscore are accepted without effect.

        Raises:
            DatasetNotFound: Nothing matches.
            InvalidRequest: Nothing was asked for, or an id together with a name, or an argument is not known.
        """
        from dataset_store.dataset.catalog.overview import latest_draft

        _require_known(kwargs)
        offline.require_online("get a dataset")
        # Scripts pass on settings that may be empty, and a version beside an id.
        dataset_id, dataset_project, dataset_name = dataset_id or None, dataset_project or None, dataset_name or None
        require_one_way(dataset_id, (dataset_project, dataset_name))
        tags, number = labels(dataset_tags), version_text(dataset_version) or None
        if not any((dataset_id, dataset_project, dataset_name, number, tags)):
            raise InvalidRequest("Nothing was asked for.", "Give an id, a project, a name or tags.")
        workspace = open_workspace(create=auto_create)
        query = Query(
            project=dataset_project,
            name=dataset_name,
            version=number,
            tags=parse_tags(tags),
            only_published=only_published,
            include_archived=include_archived,
        )
        try:
            if dataset_id is not None:
                found = cls._by_id(workspace, dataset_id, drafts=not only_completed)
                found._require_number(number)
            else:
                found = cls(workspace, None, workspace.resolve(query).id)
        except DatasetNotFound:
            begun = None if dataset_id or only_completed or only_published else latest_draft(workspace, query)
            if begun is None and (not auto_create or dataset_id is not None):
                raise
            if begun is None:
                return cls.create(dataset_name, dataset_project, query.tags.present, dataset_version=number)
            found = cls._by_id(workspace, begun, drafts=True)
        if writable_copy:
            return cls.create(found.name, found.project, found.tags, [found])
        return found

    def _require_number(self, number: str | None) -> None:
        if number and number != self.version:
            raise DatasetNotFound(f"The version {self.id} is {self.version}, not {number}.", "Give its id alone.")

    @classmethod
    def _by_id(cls, workspace: Workspace, dataset_id: str, *, drafts: bool) -> "Dataset":
        from dataset_store.dataset.drafts import beginning

        draft = beginning.open_draft(workspace, dataset_id) if drafts else None
        if draft is None:
            workspace.live_version(dataset_id)
        return cls(workspace, draft, dataset_id)

    @classmethod
    def squash(
        cls,
        dataset_name: str,
        dataset_ids: "str | Dataset | Sequence[str | Dataset] | None" = None,
        dataset_project_name_pairs: Sequence[tuple[str, str]] | None = None,
        output_url: str | None = None,
        close_squashed_dataset: bool = True,
    ) -> "Dataset":
        """Make one version of several that stands on its own, without parents. No file is read, sent or copied.

        Several are merged as parents are: later ones win, and what one of them removed stays removed.

        Args:
            dataset_name: Its name; the project is that of the first version.
            dataset_ids: The versions or their ids; one, or several.
            dataset_project_name_pairs: Instead of ids, pairs of project and name: the highest version of each.
            output_url: As `output_uri` of `create`, for what has to be written; nothing is copied there.
            close_squashed_dataset: With False, it is left a draft.

        Raises:
            DatasetNotFound, NotFinal: A version is not there or not final.
            InvalidRequest: Nothing was asked for, or both ids and pairs.
        """
        from dataset_store.dataset.drafts import beginning

        offline.require_online("squash datasets")
        if bool(dataset_ids) == bool(dataset_project_name_pairs):
            raise InvalidRequest("Ids are to be given, or pairs of project and name.", "Give one or the other.")
        workspace = open_workspace()
        pairs = dataset_project_name_pairs or ()
        found = [cls.get(dataset_project=project, dataset_name=name).id for project, name in pairs]
        ids = _ids_of(dataset_ids) or found
        project = cls.get(ids[0]).project
        new = beginning.NewVersion(project, beginning.require_name(dataset_name), None, (), (), None, False, output_url)
        draft = beginning.begin(workspace, new, squashed=ids)
        squashed = cls(workspace, draft, draft.opened.id)
        if close_squashed_dataset:
            squashed.finalize(auto_upload=True)
        return squashed

    @classmethod
    def list_datasets(
        cls,
        dataset_project: str | None = None,
        partial_name: str | None = None,
        tags: Sequence[str] | str | None = None,
        ids: Sequence[str] | str | None = None,
        only_completed: bool = True,
        recursive_project_search: bool = True,
        include_archived: bool = True,
    ) -> list[dict[str, object]]:
        """Versions by parts of what they are called, the one finalized last first.

        Args:
            dataset_project: The project, and the projects below it.
            partial_name: A regular expression that the name must hold somewhere; `re.escape` makes one of plain text.
            tags: As in `get`.
            ids: Only these; one, or several.
            only_completed: With False, the drafts of this machine too, before all others.
            recursive_project_search: With False, not the projects below.
            include_archived: Archived versions too.

        Returns:
            For each `name`, `created` (a time in UTC), `project`, `id`, `tags`, `version` and `status` (`completed`,
            `published`, or `in_progress` of a draft).

        Raises:
            InvalidRequest: `partial_name` is no regular expression, or `tags` are none.
        """
        from dataset_store.dataset.catalog.searching import Search, found_as_dict, search

        meant = Search(
            project=dataset_project,
            partial_name=partial_name,
            tags=parse_tags(labels(tags)),
            ids=None if ids is None else frozenset([ids] if isinstance(ids, str) else ids),
            subprojects=recursive_project_search,
            archived=include_archived,
            drafts=not only_completed,
        )
        try:
            workspace = open_workspace()
        except StoreNotFound as error:
            _log.warning("%s", error)
            return []
        return [found_as_dict(row) for row in search(workspace, meant)]

    @classmethod
    def rename(cls, new_dataset_name: str, dataset_project: str, dataset_name: str) -> None:
        """Give a dataset, with all its versions, another name. Ids stay.

        Raises:
            DatasetNotFound: There is no such dataset.
            VersionExists: Another dataset has the new name.
            InvalidRequest: A log entry cannot hold the new name.
        """
        from dataset_store.dataset.catalog import changing

        offline.require_online("rename a dataset")
        require_name_text("name", new_dataset_name)
        changing.move_series(open_workspace(), dataset_project, dataset_name, to_name=new_dataset_name)

    @classmethod
    def move_to_project(cls, new_dataset_project: str, dataset_project: str, dataset_name: str) -> None:
        """Put a dataset, with all its versions, into another project. Ids stay. Raises as `rename`."""
        from dataset_store.dataset.catalog import changing

        offline.require_online("move a dataset")
        if new_dataset_project:
            require_name_text("project", new_dataset_project)
        changing.move_series(open_workspace(), dataset_project, dataset_name, to_project=new_dataset_project)

    @classmethod
    def delete(
        cls,
        dataset_id: str | None = None,
        dataset_project: str | None = None,
        dataset_name: str | None = None,
        force: bool = False,
        dataset_version: str | None = None,
        entire_dataset: bool = False,
        shallow_search: bool = False,
        delete_files: bool = True,
        delete_external_files: bool = False,
    ) -> None:
        """Delete a version, or all versions of a dataset.

        Versions that have it as a parent can be read as before. Its name, number and tags are free again; local copies
        of it stay until they are evicted; what no version needs any more is left to gc. A draft is deleted by id, or by
        name where nothing else has it.

        Args:
            dataset_id: Excludes the project, name and version.
            dataset_project: The project.
            dataset_name: The name; without an id it is needed, and may leave no choice between projects.
            force: Delete it although other versions have it as a parent. Needed for `entire_dataset`.
            dataset_version: The version number.
            entire_dataset: Every version of that dataset that matches, instead of the only one.
            shallow_search: Accepted without effect.
            delete_files: Accepted without effect: gc removes what no version needs.
            delete_external_files: Remove what its links lead to, but for what another live version links to.

        Raises:
            DatasetNotFound: Nothing matches; with `entire_dataset` that is a warning only.
            Conflict: Other versions have it as a parent, and `force` is not set; or several projects have the name.
            InvalidRequest: Several versions match, or no dataset is named, or arguments exclude each other.
        """
        from dataset_store.dataset.upkeep import deleting

        offline.require_online("delete a dataset")
        named = (dataset_project, dataset_name, dataset_version)
        require_one_way(dataset_id, named)
        query = Query(project=dataset_project, name=dataset_name, version=dataset_version, include_archived=True)
        try:
            deleting.delete(
                open_workspace(),
                dataset_id,
                query,
                force=force,
                entire_dataset=entire_dataset,
                external_files=delete_external_files,
            )
        except NotFound as error:
            if not entire_dataset:
                raise
            _log.warning("%s", error)  # scripts delete whatever there is, and make it anew

    @classmethod
    def is_offline(cls) -> bool:
        """Whether offline mode is on: versions are then made in folders of their own, without the store."""
        return offline.is_offline()

    @classmethod
    def set_offline(cls, offline_mode: bool = False) -> None:
        """Turn offline mode on or off, for this process; `import_offline_session` takes in what was made offline."""
        offline.set_offline(offline_mode)

    def get_offline_mode_folder(self) -> "Path | None":
        """The folder of the offline session that holds this version; None where it is of a store.

        Once `upload` was called the folder holds the files themselves, and can be moved or zipped.
        """
        from pathlib import Path

        folder = offline.session_folder(self._workspace)
        return None if folder is None else Path(folder)

    @classmethod
    def import_offline_session(
        cls, session_folder_zip: str | os.PathLike[str], upload: bool = True, finalize: bool = False
    ) -> str:
        """Take a version that was made offline into the store.

        Args:
            session_folder_zip: The session's folder, or a zip or tar.gz file of it.
            upload: Send its files too.
            finalize: Make it final.

        Returns:
            The id that it has now: of a draft of this machine, or with `finalize` of a final version.

        Raises:
            PathNotFound: There is no such folder or file.
            InvalidRequest: It is no session, or offline mode is on.
            VersionExists: Its explicit number is taken; nothing was taken in.
            FileChanged: A file that was not uploaded into the session is not what it was, or not on this machine.
        """
        from dataset_store.dataset.sessions import take_in

        offline.require_online("import a session")
        target = open_workspace(create=True)
        with offline.opened_session(os.fspath(session_folder_zip)) as session:
            held = cls._by_id(session, offline.version_in_session(session), drafts=True)
            draft = take_in(held, target)
        taken = cls(target, draft, draft.opened.id)
        if upload or finalize:
            taken.upload()
        if finalize:
            taken.finalize()
        return taken.id


def _require_known(kwargs: dict[str, object]) -> None:
    """ClearML's `get` passes arguments that begin with an underscore to itself."""
    unknown = sorted(name for name in kwargs if not name.startswith("_"))
    if unknown:
        raise InvalidRequest(f"Dataset.get has no argument {', '.join(unknown)}.", "Look at its documentation.")


def require_one_way(dataset_id: str | None, named: Sequence[str | None]) -> None:
    """Refuse an empty id, and an id together with a project, name or version.

    Raises:
        InvalidRequest: There is one.
    """
    if dataset_id == "":
        raise InvalidRequest("The id is empty.", "Give one; an unset variable is none.")
    if dataset_id is not None and any(part is not None for part in named):
        raise InvalidRequest("An id and a project, name or version were given.", "Give one or the other.")


def _ids_of(datasets: "str | Dataset | Sequence[str | Dataset] | None") -> list[str]:
    """The ids of one version or several. A text is an id, never a list of its characters."""
    several = [datasets] if isinstance(datasets, str | Dataset) else datasets or ()
    return [one.id if isinstance(one, Dataset) else one for one in several]
