"""What is done of a pass over many items: on a bar, in a terminal or a notebook, and in the run's journal."""

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from etl.journal import Journal

_REFRESH_SECONDS = 1
_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
_MANY = 100_000  # from which on units are shown as 1.23M
_SMOOTHING = 0.1  # parts end in bursts, as many at a time as there are workers


def is_watched() -> bool:
    """Whether a person looks: standard error is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or _is_notebook()


class Progress:
    """Counts what is done."""

    def __init__(self, bar: Any, journal: Journal) -> None:
        self._bar = bar
        self._journal = journal

    def done(self, name: str, weight: int) -> None:
        """An item is done; weight: units that it counts, 0 where it was counted at the beginning."""
        self._bar.update(weight)
        self._journal.note(done=name, weight=weight)

    def failed(self, name: str, error: str) -> None:
        """An item is not going to be done in this run."""
        self._journal.note(failed=name, error=error)


@contextlib.contextmanager
def shown(
    doing: str, unit: str, *, total: int, initial: int, is_shown: bool, journal: Journal, **facts: Any
) -> Iterator[Progress]:
    """The progress of a pass, whose beginning is noted with these facts; total, initial: units in all, done already.

    The bar has the rate and the time left, and moves on every second, even while no part ends for minutes.
    """
    if total:
        journal.note(doing=doing, unit=unit, total=total, initial=initial, **facts)
    bar = _tqdm()(
        total=total,
        initial=initial,
        desc=doing,
        unit=f" {unit}",
        bar_format=_FORMAT,
        unit_scale=total >= _MANY,
        smoothing=_SMOOTHING,
        dynamic_ncols=True,
        disable=not is_shown,
        leave=False,
        file=sys.stderr,
    )
    with contextlib.closing(bar), _ticking(bar) if is_shown else contextlib.nullcontext():
        yield Progress(bar, journal)


def _tqdm() -> Any:
    """The class of bars for where this runs; a notebook without widgets gets plain text, and no warning of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm
    return tqdm


@contextlib.contextmanager
def _ticking(bar: Any) -> Iterator[None]:
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(_REFRESH_SECONDS):
            bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config
