"""Files of finished stages against the checksums noted when they were written, before anything reads them."""

import logging
from collections.abc import Collection
from functools import partial

from etl.engine import Engine
from etl.parts import damaged
from etl.work import READS, STAGES, StageFolder, Work

log = logging.getLogger(__name__)


def reopen_damaged(work: Work, wanted: Collection[str], engine: Engine) -> list[str]:
    """Call finished stages unfinished that have damaged files and are read by a wanted stage that is not finished.

    Returns their names. Each file is read once, by the workers; nothing is read when all wanted stages are finished.
    """
    unfinished = {stage for stage in wanted if work[stage].manifest() is None}
    reopened = []
    for stage in reversed(STAGES):
        is_read = any(stage in READS[other] for other in unfinished)
        if is_read and (bad := damaged_files(work[stage], engine)):
            log.warning("%s: %s, so it is made again", work[stage].path.name, _tell(bad))
            work[stage].reopen()
            unfinished.add(stage)
            reopened.append(stage)
    return reopened


def damaged_files(stage: StageFolder, engine: Engine, *, endings: tuple[str, ...] = ("",)) -> list[str]:
    """The files of a finished stage whose size or checksum is not the noted one, and those that are gone.

    endings: of the names of the files that are looked at.
    """
    files = [{name: facts} for name, facts in stage.files().items() if name.endswith(endings)]
    found = engine.map(partial(damaged, stage.path), files, doing=f"check {stage.stage}", unit="file")
    return [name for names in found for name in names]


def _tell(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'} not as written (another checksum)"
