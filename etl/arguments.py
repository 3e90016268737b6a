"""The command line's parser: help that fits a screen, and a mistake in one sentence, with the word that was meant."""

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from etl.terminal import printable
from nextlong.spelling import did_you_mean

_WIDEST = 100
_HELP_COLUMN = 25
_NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}


class Parser(argparse.ArgumentParser):
    """A parser of a verb, or of them all."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, add_help=False, **options)
        self._optionals = self._positionals  # one list, two lines shorter
        self._positionals.title = "arguments"
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and a sentence."""
        end = "" if message.endswith(("?", ".")) else "."
        self.exit(2, printable(f"nextlong: {message}{end} See {self.prog} --help.") + "\n")

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """The same, for words that are no options here."""
        name = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if name is None:
            self.error(f"{words[0]} is one argument too many.")
        meant = did_you_mean(name.lstrip("-"), [option.lstrip("-") for option in self.option_names()], "--")
        self.error(f"{name} is no option of {self.prog}.{meant}")

    def option_names(self) -> list[str]:
        """Such as --workers."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            meant = did_you_mean(str(value), map(str, action.choices or ()))
            if isinstance(action, argparse._SubParsersAction):
                self.error(f"there is no verb '{value}'.{meant}")
            error.message += f".{meant}"
            raise

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            if action.type in _NUMBERS:
                error.message = f"{arg_string!r} is not {_NUMBERS[action.type]}"
            raise


class _Help(argparse.HelpFormatter):
    """As narrow as the terminal; the usage is one line, since the options are listed below it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_HELP_COLUMN, width=min(_WIDEST, shutil.get_terminal_size().columns))

    def _format_usage(self, usage: Any, actions: Iterable[argparse.Action], groups: Iterable[Any], prefix: Any) -> str:
        groups = [group for group in groups if getattr(group, "required", False)]
        one_of = {action: group for group in groups for action in group._group_actions}
        words = [self._prog]
        for action in [*_positional(actions), *_optional(actions)]:
            if not action.option_strings:
                words.append(self._format_args(action, self._get_default_metavar_for_positional(action)))
            elif action.required:
                words.append(self._format_action_invocation(action))
            elif action in one_of and action is one_of[action]._group_actions[0]:
                words.append(" | ".join(map(self._format_action_invocation, one_of[action]._group_actions)).join("()"))
        lines = textwrap.wrap(
            " ".join([*words, "[options]"]), self._width, initial_indent="usage: ", subsequent_indent=" " * 7
        )
        return "\n".join(lines) + "\n\n"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """NAME ... in place of NAME [NAME ...]."""
        if action.nargs == argparse.ONE_OR_MORE:
            return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..."
        return super()._format_args(action, default_metavar)

    def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
        """Positional ones first."""
        super().add_arguments([*_positional(actions), *_optional(actions)])

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):  # the verbs, without a line above them
            return self._join_parts([self._format_action(each) for each in action._get_subactions()])
        return super()._format_action(action)


def _positional(actions: Iterable[argparse.Action]) -> list[argparse.Action]:
    return [action for action in actions if not action.option_strings]


def _optional(actions: Iterable[argparse.Action]) -> list[argparse.Action]:
    return [action for action in actions if action.option_strings]
