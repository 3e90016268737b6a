"""What an evaluation is asked for, checked before anything heavy is loaded."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from evaluation.tasks import TASKS
from nextlong.errors import UserError
from nextlong.spelling import did_you_mean

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Which model is asked what, and where the answers go."""

    model: Path
    """A plain folder of transformers."""
    out: Path
    """Folder of the results; one that has some of this model is gone on with."""
    tasks: Sequence[str] | None = None
    """None: all that a length has room for; named ones are measured at every length, or refused. May be empty."""
    lengths: Sequence[int] | None = None
    """Tokens of a prompt with its answer; None: three up to the model's positions, 32,768 at most."""
    number: int = 10
    """Examples of each task, length and (where it has a meaning) depth."""
    depths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Of needles: 0 beginning ... 1 end."""
    hay: str | None = None
    """noise, needles, or a file of text; None: noise."""
    documents: Path | None = None
    """Long texts (.jsonl, .parquet, .txt) or a packed folder, for losses; None: they are left out."""
    num_documents: int = 8
    """Of them that are measured."""
    probes: int = 5
    """Prompts of each length whose attention is measured; 0: none."""
    seed: int = 0
    device: str = "auto"
    """auto: a GPU where there is one."""
    dtype: str = "auto"
    """Of the weights; auto: bfloat16 on a GPU, float32 on a CPU."""
    layouts: Path | None = None
    """Folder for the examples as RULER and HELMET read them, and as texts to keep out of training data."""

    def __post_init__(self) -> None:
        """Raises UserError for what cannot be."""
        for task in self.tasks or ():
            if task not in TASKS:
                known = ", ".join(TASKS)
                raise UserError(f"there is no task {task!r}; the tasks are {known}.{did_you_mean(task, TASKS)}")
        for name, value, least in (
            ("number", self.number, 1),
            ("num-documents", self.num_documents, 1),
            ("probes", self.probes, 0),
            ("seed", self.seed, 0),
            *(("lengths", length, 2) for length in self.lengths or ()),
        ):
            if value < least:
                raise UserError(f"--{name} is {value}, but it must be at least {least}.")
        for depth in self.depths:
            if not 0 <= depth <= 1:
                raise UserError(f"--depths has {depth:g}, but a depth is from 0 (beginning) to 1 (end).")
        if (self.lengths is not None and not self.lengths) or not self.depths:
            raise UserError("--lengths and --depths need at least one number each.")
        if not self.asks_questions and self.documents is None and not self.probes:
            raise UserError("nothing is asked for: give --tasks, --documents or --probes.")

    @property
    def asks_questions(self) -> bool:
        """Whether there is any task."""
        return self.tasks is None or len(self.tasks) > 0
