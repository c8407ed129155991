"""The grammar of the commands that bring versions into other stores; `transferring` carries them out."""

from dataset_store.cli import flags
from dataset_store.cli.command import Commands, command

__all__ = ["clone", "pull", "push"]


def push(commands: Commands) -> None:
    """The grammar of `push`."""
    parser = command(
        commands,
        "transferring:push",
        "send a version, and the ancestors that it lacks, to another store, where it has the same id",
        "push s3://bucket/datasets --project data --name cats",
    )
    parser.add_argument("url", metavar="URL", help="the other store's URL or path; begun if there is none")
    flags.version(parser, tags=True)
    parser.add_argument("--all", action="store_true", help="every version that matches, also archived ones")
    flags.transfer(parser, where="there")


def pull(commands: Commands) -> None:
    """The grammar of `pull`."""
    parser = command(
        commands,
        "transferring:pull",
        "fetch a version, and the ancestors that are not here, from another store",
        "pull s3://bucket/datasets --project data --name cats",
    )
    parser.add_argument("url", metavar="URL", help="the other store's URL or path")
    flags.version(parser, tags=True)
    parser.add_argument("--all", action="store_true", help="every version that matches, also archived ones")
    flags.transfer(parser, where="here")


def clone(commands: Commands) -> None:
    """The grammar of `clone`."""
    parser = command(
        commands,
        "transferring:clone",
        "bring every version of a store, or those that match, with their history into another; repeat it for new ones",
        "clone s3://bucket/datasets --to ./copy",
    )
    parser.add_argument("url", metavar="URL", help="the store to take from")
    parser.add_argument("--to", metavar="URL", help="the store to bring them to, begun if there is none")
    parser.add_argument("--ids", nargs="+", metavar="ID", help=f"only these versions; {flags.ID_BEGINS}")
    parser.add_argument("--project", help="only versions in this project")
    parser.add_argument("--name", help="only versions of datasets called so")
    parser.add_argument("--tags", nargs="+", metavar="TAG", help="only versions with one of these tags")
    flags.transfer_in_whole(parser)
