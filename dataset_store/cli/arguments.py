"""The grammar of the command line: every command, its flags and its help. It runs nothing and loads nothing heavy.

Names of commands and flags are those of `clearml-data` where there is one. A command names the function that carries
it out, as `module:function` of this folder, so that help and usage errors load no engine.
"""

import argparse
from collections.abc import Callable, Sequence

from dataset_store import __version__
from dataset_store.cli import flags
from dataset_store.cli.command import PROGRAM, STORE, STORE_VARIABLE, Commands, command
from dataset_store.cli.parser import Parser
from dataset_store.cli.sharing_arguments import clone, pull, push
from dataset_store.cli.upkeep_arguments import expire, gc, repack, repair

__all__ = ["PROGRAM", "STORE_VARIABLE", "build_parser"]

_DESCRIPTION = (
    "Versions of datasets, stored once. A folder remembers the version begun in it, so --id is rarely needed."
)
_STATS = """\
Packs are counted in every storage that the store's log names. Files behind
external links are left out of the deduplication with --deep only, as trees
must be read to know them.

Columns of --deep: STORED are the bytes in packs that hold data of a version,
ITS OWN those of them that no other version uses, RANGES the runs of its files
that lie together in packs, PER GiB how many of these come on a GiB of files,
that is how scattered it lies (of less than a MiB: -)."""
_DOCTOR = """\
With --store its storage is tried too, for some seconds: whether it keeps racing
writers apart, reads ranges, lists what was written, and how fast it is. What is
written lies below probe/ and is removed; a store that is there is not touched.
Exit code 1 where something is not as it must be.
"""

_EPILOG = f"""\
which store:
  --store URL, else for commands about the version that this folder remembers the store it was begun in, else
  {STORE_VARIABLE}, else the settings file (`{PROGRAM} config`), else a folder under your data directory

which version:
  --id takes an id or its first 6 or more digits, as do --ids, --parents, --against, --source and --target;
  a --name that several projects have needs its --project

exit codes:
  0 done   1 failed, or `verify --folder` found a difference   2 the call was wrong   3 not found   4 conflict
  5 corrupt   130 interrupted   141 nobody reads what is printed   143 terminated

Example:
  dataset-store sync --folder ./pictures --project data --name cats
"""


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of a command line. Its errors are raised as InvalidRequest; help and version exit.

    Args:
        words: What it is to parse. Where a command comes first, no other is made: to make all takes longer than most
            commands do.
    """
    parser = Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("--store", metavar="URL", default=None, help=STORE)
    parser.add_argument("--debug", action="store_true", default=False, help="show where an error came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", prog=PROGRAM)
    asked = words[0] if words else None
    for add in [one for one in _all_commands() if _name(one) == asked] or _all_commands():
        add(commands)
    return parser


def _all_commands() -> Sequence[Callable[[Commands], None]]:
    return (
        _create, _add, _remove, _sync, _upload, _close, _publish,
        _get, _list, _log, _diff, _status, _cat, _search, _compare, _tag,
        _archive, _set_description, _rename, _move, _squash, _delete, expire, gc, repack, push, pull, clone,
        _verify, repair, _stats, _doctor, _config, _import, _completion,
    )  # fmt: skip


def _name(add: Callable[[Commands], None]) -> str:
    return add.__name__.strip("_").replace("_", "-")


def _create(commands: Commands) -> None:
    parser = command(
        commands,
        "drafting:create",
        "begin a new version and print its id",
        "create --project data --name cats --parents 0123456789abcdef0123456789abcdef",
    )
    parser.add_argument("--name", help="the dataset; by default that of the last parent")
    flags.labels(parser)
    parser.add_argument("--description", help="text kept with the version")
    flags.storage(parser)


def _add(commands: Commands) -> None:
    parser = command(
        commands,
        "drafting:add",
        "add files, or the content of folders",
        "add --files ./pictures --wildcard '*.jpg' '*.png' --dataset-folder train",
    )
    flags.draft_id(parser)
    parser.add_argument("--files", nargs="+", metavar="PATH", help="files and folders to add")
    parser.add_argument("--links", nargs="+", metavar="URL", help="files and folders to link to where they are")
    parser.add_argument("--wildcard", nargs="*", metavar="PATTERN", help="add only files that match one of these")
    parser.add_argument("--dataset-folder", metavar="DIR", help="the directory of the dataset to add to")
    parser.add_argument("--non-recursive", action="store_true", help="do not look into sub-folders")
    flags.follow_links(parser)
    flags.verbose(parser)
    flags.without_effect(parser, "--max-workers")


def _remove(commands: Commands) -> None:
    parser = command(
        commands,
        "drafting:remove",
        "remove files from the version being made",
        "remove --files 'train/*.png' notes.txt",
    )
    flags.draft_id(parser)
    parser.add_argument(
        "--files", nargs="+", required=True, metavar="PATTERN", help="paths, directories or wildcards of the dataset"
    )
    parser.add_argument("--non-recursive", action="store_true", help="keep a wildcard within one directory")
    flags.verbose(parser)


def _sync(commands: Commands) -> None:
    parser = command(
        commands,
        "drafting:sync",
        "make a version hold exactly what a folder holds, then upload and finalize it",
        "sync --folder ./pictures --project data --name cats",
    )
    parser.add_argument("--folder", required=True, metavar="DIR", help="the folder to take over")
    parser.add_argument(
        "--id",
        help="the version being made; by default the one begun in this folder, or the next after the one closed in it; "
        f"{flags.ID_BEGINS}",
    )
    parser.add_argument("--dataset-folder", metavar="DIR", help="the directory of the dataset that it becomes")
    parser.add_argument("--name", help="begin a version of this dataset first")
    flags.labels(parser)
    flags.follow_links(parser)
    parser.add_argument("--skip-close", action="store_true", help="do not upload and finalize")
    flags.verbose(parser)
    flags.storage(parser)
    flags.without_effect(parser, "--chunk-size", "--max-workers")


def _upload(commands: Commands) -> None:
    parser = command(
        commands,
        "drafting:upload",
        "send what the store lacks; repeat it if it was broken off",
        "upload",
    )
    flags.draft_id(parser)
    flags.verbose(parser)
    flags.storage(parser)
    flags.without_effect(parser, "--chunk-size", "--max-workers")


def _close(commands: Commands) -> None:
    parser = command(
        commands,
        "drafting:close",
        "upload what was not, and make the version final",
        "close",
    )
    flags.draft_id(parser)
    parser.add_argument("--disable-upload", action="store_true", help="fail if anything still waits for upload")
    flags.verbose(parser)
    flags.storage(parser)
    flags.without_effect(parser, "--chunk-size", "--max-workers")


def _get(commands: Commands) -> None:
    parser = command(
        commands,
        "reading:get",
        "print the path of a read-only folder that holds a version, or make a copy to change",
        "get --project data --name cats --copy ./cats",
    )
    flags.version(parser, tags=True)
    parser.add_argument("--copy", metavar="DIR", help="make a copy in this folder instead, which may be changed")
    parser.add_argument("--link", metavar="DIR", help="make a symbolic link to the read-only folder")
    parser.add_argument("--part", type=int, metavar="N", help="only this share of the files, from 0")
    parser.add_argument("--num-parts", type=int, metavar="N", help="how many shares there are")
    parser.add_argument("--files", nargs="+", metavar="PATTERN", help="only these paths, directories or wildcards")
    parser.add_argument("--overwrite", action="store_true", help="replace what that folder holds, or that link")
    flags.json_form(parser)
    flags.verbose(parser)
    flags.without_effect(parser, "--max-workers")


def _list(commands: Commands) -> None:
    parser = command(
        commands,
        "reading:list_",
        "list the files of a version; in a folder that has none, and with --versions, the versions of the store",
        "list --project data --name cats --filter 'train/*.jpg'",
    )
    flags.version(parser, tags=True)
    parser.add_argument("--filter", nargs="+", metavar="PATTERN", help="only files that match one of these")
    parser.add_argument("--modified", action="store_true", help="only what the version changes in its parents")
    parser.add_argument("--versions", action="store_true", help="list versions, all or those that match, not files")
    flags.json_form(parser)


def _log(commands: Commands) -> None:
    parser = command(
        commands,
        "reading:log",
        "draw what a version comes from: its parents, and theirs, with what each changed",
        "log --project data --name cats",
    )
    flags.version(parser, tags=True)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--mermaid", action="store_true", help="as a Mermaid flow chart")
    forms.add_argument("--svg", action="store_true", help="as an SVG image")
    flags.json_form(forms)


def _diff(commands: Commands) -> None:
    parser = command(
        commands,
        "reading:diff",
        "tell what a version changes: paths and sizes, and of tables rows and columns",
        "diff --project data --name cats --against 0123456789abcdef0123456789abcdef",
    )
    flags.version(parser, tags=True)
    parser.add_argument(
        "--against",
        metavar="ID",
        help="the version before it, by id or by its number in the same dataset; by default its parents",
    )
    flags.json_form(parser)


def _status(commands: Commands) -> None:
    parser = command(
        commands,
        "reading:status",
        "tell what a folder changes in a version, without writing anything",
        "status --folder ./cats --project data --name cats",
    )
    flags.version(parser, tags=True)
    parser.add_argument("--folder", default=".", metavar="DIR", help="the folder; by default this one")
    flags.json_form(parser)


def _cat(commands: Commands) -> None:
    parser = command(
        commands,
        "reading:cat",
        "write files of a version to standard output, fetching nothing else",
        "cat train/labels.csv --project data --name cats",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files of the version")
    flags.version(parser, tags=True)


def _tag(commands: Commands) -> None:
    parser = command(
        commands,
        "reading:tag",
        "change or print the tags of a version, also of a final one",
        "tag --project data --name cats --add latest --remove candidate",
    )
    flags.version(parser)
    parser.add_argument("--add", nargs="+", metavar="TAG", help="tags to add")
    parser.add_argument("--remove", nargs="+", metavar="TAG", help="tags to remove")
    parser.add_argument("--set", nargs="*", metavar="TAG", help="exactly these tags from now on; none is allowed")
    flags.json_form(parser)


def _publish(commands: Commands) -> None:
    parser = command(
        commands, "managing:publish", "mark a final version published", "publish --project data --name cats"
    )
    flags.version(parser)


def _archive(commands: Commands) -> None:
    parser = command(
        commands,
        "managing:archive",
        "hide a version from searches and from being found by name; by id it can still be read",
        "archive --project data --name cats --version 1.0.3",
    )
    flags.version(parser)
    parser.add_argument("--undo", action="store_true", help="show it again; by name it finds archived versions first")


def _config(commands: Commands) -> None:
    parser = command(
        commands,
        "store:config",
        "print the settings in force, and where each comes from; or change the user's file",
        "config --set store=s3://bucket/datasets",
    )
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", help="write these into the user's settings file")
    parser.add_argument("--unset", nargs="+", metavar="NAME", help="take these out of it")
    flags.json_form(parser)


def _import(commands: Commands) -> None:
    parser = command(
        commands,
        "importing:import_",
        "make versions of a history: of folders one after another, or of what a DVC repository tracks",
        "import --folders ./cats-january ./cats-february --project data --name cats",
    )
    parser.add_argument("--folders", nargs="+", metavar="DIR", help="folders, the oldest first; each becomes a version")
    parser.add_argument("--dvc", metavar="REPOSITORY", help="a git repository with DVC; its cache must hold the data")
    parser.add_argument("--target", metavar="PATH", help="what DVC tracks there, such as data or data.dvc")
    parser.add_argument("--project", help="the project of the dataset")
    parser.add_argument("--name", required=True, help="the dataset; the history goes on where it has versions already")
    flags.json_form(parser)


def _completion(commands: Commands) -> None:
    parser = command(
        commands,
        "completion:completion",
        "print a script that lets a shell complete commands and flags",
        "completion bash",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell; its help says where scripts go")


def _set_description(commands: Commands) -> None:
    parser = command(
        commands,
        "managing:set_description",
        "change the description of a version, also of a final one",
        "set-description --description 'Cats, cropped' --project data --name cats",
    )
    flags.version(parser)
    parser.add_argument("--description", required=True, metavar="TEXT", help="the text; an empty one takes it away")


def _rename(commands: Commands) -> None:
    parser = command(
        commands,
        "managing:rename",
        "give a dataset, with all its versions, another name",
        "rename --project data --name cats --new-name felines",
    )
    flags.series(parser)
    parser.add_argument("--new-name", required=True, metavar="NAME", help="its name from now on")


def _move(commands: Commands) -> None:
    parser = command(
        commands,
        "managing:move",
        "put a dataset, with all its versions, into another project",
        "move --project data --name cats --new-project archive",
    )
    flags.series(parser)
    parser.add_argument("--new-project", required=True, metavar="PROJECT", help="its project from now on")


def _delete(commands: Commands) -> None:
    parser = command(
        commands,
        "managing:delete",
        "delete a version, or with --entire-dataset all versions of a dataset",
        "delete --project data --name cats --version 1.0.3",
    )
    parser.add_argument("--id", help=f"the version, or a draft of this machine; {flags.ID_BEGINS}")
    parser.add_argument("--project", help="the dataset's project; needed where several have one of that name")
    parser.add_argument("--name", help="the dataset; needed without --id")
    parser.add_argument("--version", help="the one with this version number")
    parser.add_argument("--force", action="store_true", help="also if other versions have it as a parent")
    parser.add_argument("--entire-dataset", action="store_true", help="every version of the dataset; needs --force")


def _squash(commands: Commands) -> None:
    parser = command(
        commands,
        "managing:squash",
        "make one version of several that stands on its own, copying nothing",
        "squash --name all --ids 0123456789abcdef0123456789abcdef fedcba9876543210fedcba9876543210",
    )
    parser.add_argument("--name", required=True, help="the dataset that it begins; the project is that of the first")
    parser.add_argument(
        "--ids", nargs="+", required=True, metavar="ID", help=f"the versions; later ones win; {flags.ID_BEGINS}"
    )
    flags.verbose(parser)
    flags.storage(parser)


def _search(commands: Commands) -> None:
    parser = command(
        commands,
        "managing:search",
        "look for versions by parts of their names",
        "search --project data --name 'cat.*' --tags latest",
    )
    parser.add_argument("--ids", nargs="+", metavar="ID", help=f"only these versions; {flags.ID_BEGINS}")
    parser.add_argument("--project", help="versions in this project and in those below it")
    parser.add_argument("--name", metavar="REGEX", help="versions whose dataset's name holds this regular expression")
    parser.add_argument(
        "--tags", nargs="+", metavar="TAG", help="versions with one of these tags (--tags=-TAG: without)"
    )
    parser.add_argument("--not-only-completed", action="store_true", help="the drafts of this machine too")
    parser.add_argument("--archived", action="store_true", help="archived versions too")
    parser.add_argument("--non-recursive-project-search", action="store_true", help="not the projects below")
    flags.json_form(parser)


def _compare(commands: Commands) -> None:
    parser = command(
        commands,
        "managing:compare",
        "count the files that one version adds, removes and modifies compared with another",
        "compare --source 0123456789abcdef0123456789abcdef --target fedcba9876543210fedcba9876543210",
    )
    parser.add_argument("--source", required=True, metavar="ID", help=f"the version before; {flags.ID_BEGINS}")
    parser.add_argument("--target", required=True, metavar="ID", help=f"the version after; {flags.ID_BEGINS}")
    parser.add_argument("--verbose", action="store_true", help="name the files")
    flags.json_form(parser)


def _verify(commands: Commands) -> None:
    parser = command(
        commands,
        "store:verify",
        "read every byte of a version, or of the whole store, and check it, or compare a folder with a version",
        "verify --folder ./cats --project data --name cats",
    )
    flags.version(parser)
    parser.add_argument("--folder", metavar="DIR", help="compare this folder, reading its files, with the version")
    parser.add_argument("--filesize", action="store_true", help="with --folder: compare sizes only, read nothing")
    parser.add_argument(
        "--links",
        action="store_true",
        help="ask the sources of external links whether these lead to what they did; exit code 1 where one does not",
    )
    parser.add_argument("--all", action="store_true", help="check the whole store: log, trees, and all packs")
    parser.add_argument("--structure", action="store_true", help="with --all: read no data, only what describes it")
    parser.add_argument(
        "--sample", metavar="SHARE", help="with --all: of the data read only so much, such as 5%% or 10GiB, at random"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="with --sample: which frames (default 0)")
    flags.verbose(parser)
    flags.json_form(parser)


def _stats(commands: Commands) -> None:
    parser = command(
        commands,
        "store:stats",
        "tell how much a store holds, and how large its versions are",
        "stats --project data --name cats --deep",
    )
    parser.description = f"{parser.description}\n\n{_STATS}"
    flags.version(parser)
    parser.add_argument(
        "--deep", action="store_true", help="read every tree: what each version alone holds, compression, ranges"
    )
    flags.json_form(parser)


def _doctor(commands: Commands) -> None:
    parser = command(
        commands,
        "store:doctor",
        "tell what this installation is made of, and whether the store can be reached",
        "doctor --store s3://bucket/datasets",
    )
    parser.description = f"{parser.description}\n\n{_DOCTOR}"
    flags.json_form(parser)
