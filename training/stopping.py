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

    def asked_anywhere(self) -> bool:
        """Whether any rank was: all ranks must ask at once."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        asked = torch.tensor(int(self.asked), device=device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked)


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
