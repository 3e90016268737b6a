"""Where log lines go: to the screen, and to the run.log of a folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etl.terminal import Formatter

_LOGGERS = ("etl", "nextlong", "training", "evaluation", "experiments")  # what libraries log goes nowhere


def log_to(folder: Path) -> None:
    """From now on what is logged goes to run.log in a folder too."""
    folder.mkdir(parents=True, exist_ok=True)
    log_with(_log_file(folder / "run.log"))


def _log_file(path: Path) -> logging.Handler:
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


def file_dask_log() -> None:
    """What Dask warns of, such as a worker that died, goes to run.log and not between the lines on the screen."""
    import distributed  # noqa: F401  which gives its loggers handlers

    files = [handler for handler in logging.getLogger("etl").handlers if isinstance(handler, logging.FileHandler)]
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logger = logging.getLogger(name)
        if logger.handlers:
            logger.handlers = [_log_file(Path(file.baseFilename)) for file in files]  # of its own: Dask sets its level
            logger.setLevel(logging.WARNING)


def log_with(handler: logging.Handler) -> None:
    """Give a handler what our own packages log."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addHandler(handler)


@contextmanager
def logged_to_screen() -> Iterator[None]:
    """What is logged meanwhile goes to standard error, and to what folders log_to names; to neither afterwards."""
    before = {name: list(logging.getLogger(name).handlers) for name in _LOGGERS}
    log_with(Console())
    try:
        yield
    finally:
        for name, handlers in before.items():
            logger = logging.getLogger(name)
            for handler in [each for each in logger.handlers if each not in handlers]:
                logger.removeHandler(handler)
                handler.close()


def hush() -> None:
    """From now on the screen gets errors alone: of several ranks of a training one tells the rest."""
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, Console):
                handler.setLevel(logging.ERROR)


class _LogFile(logging.FileHandler):
    """A log file that gives up a line where it cannot be written: the screen has it, and says why."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class Console(logging.Handler):
    """Log lines on standard error that do not tear a progress bar."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        if "tqdm" in sys.modules and sys.stderr.isatty():
            from tqdm.auto import tqdm

            tqdm.write(self.format(record), file=sys.stderr)
        else:
            print(self.format(record), file=sys.stderr, flush=True)
