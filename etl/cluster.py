"""A recipe's `cluster` section in, a Dask cluster of that kind out: on this machine, by SSH, SLURM or Kubernetes."""

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator
from typing import Any, Literal, get_args

from nextlong.config import require
from nextlong.errors import UserError

Kind = Literal[
    "LocalCluster",
    "SSHCluster",
    "SLURMCluster",
    "PBSCluster",
    "SGECluster",
    "LSFCluster",
    "HTCondorCluster",
    "OARCluster",
    "KubeCluster",
    "LocalCUDACluster",
]
DASHBOARD = "127.0.0.1:0"
"""Of a cluster on this machine: any free port, for this machine alone. Dask's own default is open to all machines."""
LOCAL_KINDS = ("LocalCluster", "LocalCUDACluster")
"""Those whose workers are processes of this machine."""
_DISTRIBUTED, _JOBQUEUE = "distributed", "dask_jobqueue"
_MODULES = {
    "LocalCluster": (_DISTRIBUTED, "distributed"),
    "SSHCluster": (_DISTRIBUTED, "distributed asyncssh"),
    "KubeCluster": ("dask_kubernetes.operator", "dask-kubernetes"),
    "LocalCUDACluster": ("dask_cuda", "dask-cuda"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Which Dask cluster a run starts and ends. Decides where work is done and nothing about the data."""

    kind: Kind
    """The class of the cluster; no other code can be named here."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Arguments of that class, as its documentation names them. On this machine alone (LocalCluster, LocalCUDACluster)
    dashboard_address is a free port of 127.0.0.1 unless it is given."""
    workers: int | None = None
    """Workers to scale to, for clusters that start with none (SLURM and other queues, Kubernetes); None: as started."""
    wait_minutes: float = 60
    """How long the first worker may take to come, in a queue."""

    def __post_init__(self) -> None:
        require(self.kind in get_args(Kind), "cluster.kind", self.kind, f"one of {', '.join(get_args(Kind))}")
        require(self.workers is None or self.workers >= 1, "cluster.workers", self.workers, "at least 1, or null")
        require(self.wait_minutes > 0, "cluster.wait_minutes", self.wait_minutes, "above 0")


@contextlib.contextmanager
def started(cluster: Cluster) -> Iterator[Any]:
    """The running cluster; it ends with the block. UserError where its package is missing or it does not start."""
    made = _start(cluster)
    try:
        if cluster.workers is not None:
            made.scale(cluster.workers)
        yield made
    finally:
        made.close()


def _start(cluster: Cluster) -> Any:
    module, packages = _MODULES.get(cluster.kind, (_JOBQUEUE, "dask-jobqueue"))
    try:
        make = getattr(importlib.import_module(module), cluster.kind)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"cluster.kind is {cluster.kind}, but its package is not installed ({error}). Run: pip install {packages}"
        ) from error
    defaults = {"dashboard_address": DASHBOARD} if cluster.kind in LOCAL_KINDS else {}
    try:
        return make(**defaults | cluster.options)
    except Exception as error:  # whatever its package raises for its own options, hosts or queue
        first = _first_cause(error)
        raise UserError(
            f"the cluster did not start: {cluster.kind}({_names(cluster.options)}) says {type(first).__name__}: "
            f"{' '.join(str(first).split())}. Correct cluster.options: they are the arguments of that class."
        ) from error


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _names(options: dict[str, Any]) -> str:
    """The options by name only: values may be secrets."""
    return ", ".join(sorted(options))
