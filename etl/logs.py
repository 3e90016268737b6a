"""Log records of the command line in, lines on the screen and in run.log out; what other libraries log goes nowhere."""

import logging
import sys
from pathlib import Path

from etl.terminal import Formatter

_LOGGERS = ("etl", "nextlong")


def log_to_screen() -> None:
    """Show what is worth knowing on standard error."""
    _log_with(_Console())


def log_to_folder(folder: Path) -> None:
    """Keep everything in the folder's run.log, after what earlier runs have said there."""
    folder.mkdir(parents=True, exist_ok=True)
    _log_with(_log_file(folder / "run.log"))


def file_dask_log() -> None:
    """What Dask warns of, such as a worker that died, goes to run.log and not between the lines on the screen."""
    import distributed  # noqa: F401  which gives its loggers handlers

    files = [handler for handler in logging.getLogger("etl").handlers if isinstance(handler, logging.FileHandler)]
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logger = logging.getLogger(name)
        if logger.handlers:
            logger.handlers = [_log_file(Path(file.baseFilename)) for file in files]  # of its own: Dask sets its level
            logger.setLevel(logging.WARNING)


def _log_with(handler: logging.Handler) -> None:
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addHandler(handler)


def _log_file(path: Path) -> logging.Handler:
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


class _LogFile(logging.FileHandler):
    """A log file that gives up a line where it cannot be written: the screen has it, and says why."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Console(logging.Handler):
    """Log lines on standard error that do not tear a progress bar."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        if "tqdm" in sys.modules and sys.stderr.isatty():
            from tqdm.auto import tqdm

            tqdm.write(self.format(record), file=sys.stderr)
        else:
            sys.stderr.write(f"{self.format(record)}\n")  # which is line-buffered
