"""A signal to end in, an end after the step with a checkpoint out; all ranks learn of it at the same step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


class Stop:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.asked = False

    def anywhere(self, *others: bool) -> list[bool]:
        """Whether any rank was asked to end, and for each other flag, whether it is true on any: all ask at once."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        flags = torch.tensor([self.asked, *others], dtype=torch.int32, device=device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return [bool(each) for each in flags.tolist()]


@contextmanager
def stopping() -> Iterator[Stop]:
    """SIGTERM and SIGINT end the run after the step, with a checkpoint; afterwards they do what they did before."""
    stop = Stop()

    def ask(*_: object) -> None:
        stop.asked = True

    before = {each: signal.signal(each, ask) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
