"""The grammar of the commands that keep a store small and whole; `maintaining` and `mending` carry them out."""

import argparse

from dataset_store.cli import flags
from dataset_store.cli.command import Commands, command

__all__ = ["expire", "gc", "repack", "repair"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def gc(commands: Commands) -> None:
    """The grammar of `gc`."""
    parser = command(
        commands,
        "maintaining:gc",
        "tell which packs nothing needs any more, and with --apply delete them; others may go on writing meanwhile",
        "gc --apply",
    )
    _apply(parser, "delete them")
    parser.add_argument(
        "--min-age",
        type=duration,
        default=86400.0,
        metavar="TIME",
        help="leave packs that are younger, such as 12h or 3d (default 24h): they may be of uploads under way, which "
        "else have to be sent again",
    )
    parser.add_argument("--drop-hold", metavar="ID", help="first end this hold of an upload that will not be finished")
    flags.json_form(parser)


def repack(commands: Commands) -> None:
    """The grammar of `repack`."""
    parser = command(
        commands,
        "maintaining:repack",
        "tell which packs are in good part dead, and with --apply copy what lives of them into new ones",
        "repack --apply",
    )
    _apply(parser, "copy, and delete the old packs")
    parser.add_argument(
        "--dead",
        type=int,
        default=30,
        metavar="PERCENT",
        help="packs of which at least so much is dead (default 30)",
    )
    parser.add_argument(
        "--sequential",
        metavar="ID",
        help=f"instead the packs of this version, put in the order in which it is read; {flags.ID_BEGINS}",
    )
    flags.json_form(parser)


def repair(commands: Commands) -> None:
    """The grammar of `repair`."""
    parser = command(
        commands,
        "mending:repair",
        "tell what of a damaged store can be restored from local copies, folders or another store; --apply does it",
        "repair --folder ./cats --apply",
    )
    _apply(parser, "restore it")
    parser.add_argument(
        "--folder", action="append", dest="folders", metavar="DIR", help="look for lost files here too; may be repeated"
    )
    parser.add_argument("--from", dest="source", metavar="URL", help="look for lost contents in this store too")
    parser.add_argument(
        "--structure", action="store_true", help="look for lost packs and nodes only, and read no data to find damage"
    )
    flags.verbose(parser)
    flags.json_form(parser)


def expire(commands: Commands) -> None:
    """The grammar of `expire`."""
    parser = command(
        commands,
        "maintaining:expire",
        "tell which versions of datasets no rule keeps, and with --apply delete these; gc then frees what they needed",
        "expire --project data --name cats --keep-last 5 --keep-tagged",
    )
    _apply(parser, "delete them")
    parser.add_argument("--project", help="the datasets of this project")
    parser.add_argument("--name", help="the dataset of this name")
    parser.add_argument("--all", action="store_true", help="every dataset of the store")
    parser.add_argument("--keep-last", type=int, metavar="N", help="keep the N highest versions of each dataset")
    parser.add_argument(
        "--keep-within", type=duration, metavar="TIME", help="keep versions finalized in the last TIME, such as 30d"
    )
    parser.add_argument("--keep-tagged", action="store_true", help="keep versions that carry a tag")
    parser.add_argument("--keep-tags", nargs="+", metavar="TAG", help="keep versions that carry one of these tags")
    flags.json_form(parser)


def duration(text: str) -> float:
    """Seconds of a time such as `90s`, `15m`, `24h`, `30d` or `2w`; `0` is none at all."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _SECONDS else (text, "")
    try:
        seconds = float(number) * _SECONDS.get(unit, 0 if float(number) == 0 else float("nan"))
    except ValueError:
        seconds = float("nan")
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give a number and s, m, h, d or w, such as 24h")
    return seconds


def _apply(parser: argparse.ArgumentParser, doing: str) -> None:
    parser.add_argument("--apply", action="store_true", help=f"{doing}; without it nothing is written")
