"""Flags that several commands share, each described once."""

import argparse

__all__ = [
    "ID_BEGINS",
    "draft_id",
    "follow_links",
    "json_form",
    "labels",
    "series",
    "storage",
    "transfer",
    "transfer_in_whole",
    "verbose",
    "version",
    "without_effect",
]

ID_BEGINS = "the first 6 or more digits are enough"


def series(parser: argparse.ArgumentParser) -> None:
    """Flags that say which dataset is meant."""
    parser.add_argument("--project", help="its project; needed where several have a dataset of that name")
    parser.add_argument("--name", required=True, help="its name")


def draft_id(parser: argparse.ArgumentParser) -> None:
    """The draft that is meant."""
    parser.add_argument("--id", help=f"the version being made; by default the one begun in this folder; {ID_BEGINS}")


def version(parser: argparse.ArgumentParser, *, tags: bool = False) -> None:
    """Flags that say which version is meant."""
    parser.add_argument("--id", help=f"the version; by default the one that this folder remembers; {ID_BEGINS}")
    parser.add_argument("--project", help="the highest version in this project")
    parser.add_argument("--name", help="the highest version of this dataset; --project too where several have one")
    parser.add_argument("--version", help="exactly this version number")
    if tags:
        parser.add_argument(
            "--tags",
            nargs="+",
            metavar="TAG",
            help="the version last finalized with one of these (=-TAG: without)",
        )


def labels(parser: argparse.ArgumentParser) -> None:
    """Flags of a version to begin, besides its name."""
    parser.add_argument("--project", help="the project; by default that of the last parent")
    parser.add_argument("--version", help="its version number; by default the next one")
    parser.add_argument(
        "--parents",
        "--parent",
        nargs="*",
        metavar="ID",
        help=f"versions that it begins with, later ones win; {ID_BEGINS}, `latest` is the highest of --name",
    )
    parser.add_argument("--tags", nargs="*", metavar="TAG", help="tags that it carries from its first moment")


def follow_links(parser: argparse.ArgumentParser) -> None:
    """What becomes of links to folders outside."""
    parser.add_argument("--follow-links", action="store_true", help="take the files of folders that links lead out to")


def verbose(parser: argparse.ArgumentParser) -> None:
    """More words."""
    parser.add_argument("--verbose", action="store_true", help="tell more, on standard error")


def json_form(parser: argparse._ActionsContainer) -> None:
    """A document instead of lines."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")


def storage(parser: argparse.ArgumentParser) -> None:
    """Where packs go."""
    parser.add_argument(
        "--storage",
        "--output-uri",
        dest="storage",
        metavar="URL",
        help="where the packs of this version go, instead of the store; its log stays there",
    )


def transfer(parser: argparse.ArgumentParser, where: str) -> None:
    """How versions are brought into another store; `where` is that store in a word."""
    parser.add_argument("--no-history", action="store_true", help="without ancestors: parents are named and absent")
    parser.add_argument(
        "--as",
        dest="as_name",
        metavar="NAME",
        help=f"what the dataset is to be called {where}; one called so already gets the versions",
    )
    parser.add_argument("--as-project", metavar="PROJECT", help=f"its project {where}")
    parser.add_argument(
        "--renumber",
        action="store_true",
        help=f"give a version whose number another has {where} the next free one",
    )
    transfer_in_whole(parser)


def transfer_in_whole(parser: argparse.ArgumentParser) -> None:
    """The same flags where all of a store is meant."""
    parser.add_argument(
        "--labels",
        action="store_true",
        help="give versions that are there already the tags, description, metadata and state of the source",
    )
    storage(parser)
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be sent")
    verbose(parser)
    json_form(parser)


def without_effect(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Numbers that ClearML's commands take and that change nothing here."""
    for flag in flags:
        parser.add_argument(flag, type=int, metavar="N", help="accepted without effect")
