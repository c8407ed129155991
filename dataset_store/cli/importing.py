"""The command that makes versions of a history kept by other means."""

from argparse import Namespace
from typing import TYPE_CHECKING

from dataset_store.cli.output import json_out, lines_out, shown
from dataset_store.cli.presenting import counted, title
from dataset_store.errors import InvalidRequest

if TYPE_CHECKING:
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.importing import Step

__all__ = ["import_"]


def import_(arguments: Namespace) -> int:
    """Make a version of each step of a history."""
    from dataset_store.dataset.importing import dvc_history, folder_history, import_history, steps_taken

    if (arguments.folders is None) == (arguments.dvc is None):
        raise InvalidRequest("Either --folders or --dvc says what to take.", "See `dataset-store import --help`.")
    project = arguments.project or ""
    taken = steps_taken(project, arguments.name)
    if arguments.dvc is None:
        steps = folder_history(arguments.folders, taken)
    else:
        if arguments.target is None:
            raise InvalidRequest("--dvc needs --target.", "Name what `dvc add` tracked, such as data or data.dvc.")
        steps = dvc_history(arguments.dvc, arguments.target, taken)

    def told(made: "Dataset", step: "Step") -> None:
        if not arguments.json:
            lines_out([f"{shown(title(made))} {made.id}  {shown(step.description)}"])

    made = import_history(steps, project, arguments.name, told)
    if arguments.json:
        json_out({"versions": made})
    else:
        lines_out([f"{counted(len(made), 'version')} made"])
    return 0
