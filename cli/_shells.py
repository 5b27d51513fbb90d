"""How bash wants to be answered: it takes `--set key=value` for three words, and adds a space after every word.

Source: https://www.gnu.org/software/bash/manual/html_node/Programmable-Completion.html, COMP_WORDBREAKS and compopt.
What zsh and fish want, click knows.
"""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

NO_SPACE = """\
    if [[ ${COMPREPLY[0]} == *[=./] ]]; then
        compopt -o nospace
    fi

    return 0
"""


def ready() -> None:
    """Have click answer bash like this."""
    add_completion_class(Bash, "bash")


class Bash(BashComplete):
    """Words joined again that bash split at `=`; no space where a word goes on."""

    source_template = BashComplete.source_template.replace("    return 0\n", NO_SPACE)

    def get_completion_args(self) -> tuple[list[str], str]:
        """The whole words before the one that is completed, and that one."""
        words = split_arg_string(os.environ["COMP_WORDS"])
        at = int(os.environ["COMP_CWORD"])
        *args, incomplete = _joined([*words[1:at], words[at] if at < len(words) else ""])
        return args, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Its line for the script; only what stands after the `=` where bash split there."""
        words = split_arg_string(os.environ["COMP_WORDS"])[: int(os.environ["COMP_CWORD"]) + 1]
        value = item.value.partition("=")[2] if "=" in words[-2:] else ""
        return f"{item.type},{value or item.value}"


def _joined(words: list[str]) -> list[str]:
    """`a`, `=`, `b` as `a=b`; an empty word after `=` is one of its own, for bash counts from the `=` there."""
    joined: list[str] = []
    open_ = False
    for word in words:
        if joined and (word == "=" or (open_ and word)):
            joined[-1] += word
        else:
            joined.append(word)
        open_ = word == "="
    return joined
