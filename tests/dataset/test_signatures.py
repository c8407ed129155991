"""Methods take the arguments of ClearML (`clearml` 2.1.12) in its order and with its defaults, also by position."""

import inspect

import pytest

from dataset_store import Dataset

CLEARML = {
    "create": "dataset_name=None, dataset_project=None, dataset_tags=None, parent_datasets=None, "
    "use_current_task=False, dataset_version=None, output_uri=None, description=None",
    "get": "dataset_id=None, dataset_project=None, dataset_name=None, dataset_tags=None, only_completed=False, "
    "only_published=False, include_archived=False, auto_create=False, writable_copy=False, dataset_version=None, "
    "alias=None, overridable=False, shallow_search=False, silence_alias_warnings=False",
    "add_files": "path, wildcard=None, local_base_folder=None, dataset_path=None, recursive=True, verbose=False, "
    "max_workers=None, follow_links=False, executor=None",
    "add_external_files": "source_url, wildcard=None, dataset_path=None, recursive=True, verbose=False, "
    "max_workers=None, read_hash=False",
    "set_metadata": "metadata, metadata_name='metadata', ui_visible=True",
    "get_metadata": "metadata_name='metadata'",
    "get_default_storage": "",
    "remove_files": "dataset_path=None, recursive=True, verbose=False",
    "sync_folder": "local_path, dataset_path=None, verbose=False, dry_run=False, follow_links=False, executor=None",
    "upload": "show_progress=True, verbose=False, output_url=None, compression=None, chunk_size=None, "
    "max_workers=None, retries=3, preview=True, upload_as_external_links=False, executor=None",
    "finalize": "verbose=False, raise_on_error=True, auto_upload=False",
    "publish": "raise_on_error=True",
    "set_description": "description",
    "get_local_copy": "use_soft_links=None, part=None, num_parts=None, raise_on_error=True, max_workers=None, "
    "files=None, executor=None",
    "get_mutable_local_copy": "target_folder, overwrite=False, part=None, num_parts=None, raise_on_error=True, "
    "max_workers=None, executor=None",
    "get_num_chunks": "include_parents=True",
    "list_files": "dataset_path=None, recursive=True, dataset_id=None",
    "list_added_files": "dataset_id=None",
    "list_removed_files": "dataset_id=None",
    "list_modified_files": "dataset_id=None",
    "get_dependency_graph": "",
    "is_final": "",
    "is_dirty": "",
    "add_tags": "tags",
    "delete": "dataset_id=None, dataset_project=None, dataset_name=None, force=False, dataset_version=None, "
    "entire_dataset=False, shallow_search=False, delete_files=True, delete_external_files=False",
    "verify_dataset_hash": "local_copy_path=None, skip_hash=False, verbose=False",
    "squash": "dataset_name, dataset_ids=None, dataset_project_name_pairs=None, output_url=None, "
    "close_squashed_dataset=True",
    "rename": "new_dataset_name, dataset_project, dataset_name",
    "move_to_project": "new_dataset_project, dataset_project, dataset_name",
    "list_datasets": "dataset_project=None, partial_name=None, tags=None, ids=None, only_completed=True, "
    "recursive_project_search=True, include_archived=True",
}


@pytest.mark.parametrize("method", CLEARML)
def test_arguments_stand_in_clearmls_order_with_its_defaults(method):
    parameters = inspect.signature(getattr(Dataset, method)).parameters.values()
    named = [each for each in parameters if each.name != "self" and each.kind is not each.VAR_KEYWORD]
    shown = [each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in named]
    assert ", ".join(shown) == CLEARML[method]
