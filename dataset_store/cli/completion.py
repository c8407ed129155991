"""Scripts by which shells complete commands and flags, made from the grammar itself."""

import argparse
from argparse import Namespace
from collections.abc import Mapping, Sequence

from dataset_store.cli.arguments import PROGRAM, build_parser
from dataset_store.cli.output import lines_out

__all__ = ["completion"]

_BASH = """\
_dataset_store() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" command="" each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$each" in {names}) command="$each"; break ;; esac
    done
    local flags=""
    case "$command" in
        "") flags="{commands} --store --debug --help --version" ;;
{cases}
    esac
    if [[ "$word" == -* || -z "$command" ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _dataset_store {program}
"""

_ZSH = """\
#compdef {program}
autoload -U +X bashcompinit && bashcompinit
{bash}"""


def completion(arguments: Namespace) -> int:
    """Print the script for one shell."""
    flags = _flags()
    made = {"bash": _bash, "zsh": lambda known: _ZSH.format(program=PROGRAM, bash=_bash(known)), "fish": _fish}
    lines_out(made[arguments.shell](flags).splitlines())
    return 0


def _flags() -> Mapping[str, Sequence[tuple[str, str]]]:
    """For each command its flags, each with its help."""
    choices = next(
        action.choices for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return {
        name: [
            (option, action.help or "")
            for action in parser._actions
            for option in action.option_strings
            if option.startswith("--")
        ]
        for name, parser in choices.items()
    }


def _bash(known: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    cases = [f'        {name}) flags="{" ".join(flag for flag, _ in flags)}" ;;' for name, flags in known.items()]
    return _BASH.format(names="|".join(known), commands=" ".join(known), cases="\n".join(cases), program=PROGRAM)


def _fish(known: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    lines = [f"complete -c {PROGRAM} -n __fish_use_subcommand -f -a {name}" for name in known]
    for name, flags in known.items():
        for flag, about in flags:
            text = about.replace("\\", "\\\\").replace("'", "\\'")
            lines.append(f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {name}' -l {flag[2:]} -d '{text}'")
    return "\n".join(lines)
