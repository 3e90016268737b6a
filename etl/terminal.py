"""Text that may come from anywhere in, text that is safe to print out: control characters are shown, not sent."""

import logging
from types import TracebackType


def printable(text: str) -> str:
    """A text on one line: every character that is not printable becomes its escape, such as \\x1b or \\u202e."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escape(each) for each in text)


def printable_lines(text: str) -> str:
    """A text of several lines: the same, but newlines and tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def _escape(character: str) -> str:
    return ascii(character)[1:-1]


class Formatter(logging.Formatter):
    """Log records of one line each, whatever is in their messages; a traceback below keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line."""
        return printable(super().formatMessage(record))

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """The traceback."""
        return printable_lines(super().formatException(ei))
