"""How a CPU engine's process comes to be (vLLM pinned: 0.32): one, forked from a server that has vLLM loaded already.

vLLM would start an interpreter for the engine once the replica has loaded vLLM, from that another for its worker, and
on a first start one more to look at the model's class; each loads vLLM again. Here the server loads it while the
replica does, on another core, and the worker is in the engine's process. vLLM wants a process for the worker only to
bind its threads, so there is one where threads are bound.
"""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

BIND = "VLLM_CPU_OMP_THREADS_BIND"
WORKER = "tokenyard_deployments.serving.engine.cpu_worker.SeededCpuWorker"
LOADED = (
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.structured_output.backend_xgrammar",
    "tokenyard_deployments.serving.engine.scheduling.scheduler",
    "tokenyard_deployments.serving.engine.grammars.trial",
)
PRELOAD = "tokenyard_deployments.serving.engine.preload"
_CONTEXT = "get_mp_context"
_INSPECT = "_run_in_subprocess"


class EngineLaunchChanged(Exception):
    """vLLM does not start its engine as this module knows it."""


def load_ahead() -> None:
    """Start the server. Call it with the engine's environment in place: OpenMP reads its own as torch is loaded."""
    get_context("forkserver").set_forkserver_preload([PRELOAD])
    forkserver.ensure_running()


@contextmanager
def loading() -> Iterator[None]:
    """Look for no garbage while modules are loaded: that takes a quarter of the time, as vLLM makes a million objects.

    They stay, so nobody looks through them later either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def launch_from_server() -> None:
    """Make vLLM fork its engine from the server, and look at a model's class in this process.

    Raises:
        EngineLaunchChanged: this version of vLLM does it in another way.
    """
    # The replica loads this module before it loads vLLM.
    from vllm.model_executor.models import registry  # noqa: PLC0415
    from vllm.v1.engine import utils  # noqa: PLC0415

    for module, name, value in ((utils, _CONTEXT, EngineContext), (registry, _INSPECT, _call)):
        if not hasattr(module, name):
            raise EngineLaunchChanged(f"{module.__name__} has no {name}")
        setattr(module, name, value)


def take_cpu_worker(config: Any) -> None:
    """Take our worker, in the engine's process where it may be; `config` is vLLM's, before an engine starts."""
    parallel = config.parallel_config
    parallel.worker_cls = WORKER
    if parallel.world_size == 1 and os.environ.get(BIND) == "nobind":
        parallel.distributed_executor_backend = "uni"


def _call(function: Callable[[], Any]) -> Any:
    return function()


class EngineContext(ForkServerContext):
    """What vLLM starts a process by."""

    # The name is `multiprocessing`'s.
    def Process(self, *, target: Callable[..., Any], **options: Any) -> BaseProcess:  # type: ignore[override]
        process: BaseProcess = super().Process(target=_run, args=(dict(os.environ), target), **options)
        return process


def _run(environment: Mapping[str, str], target: Callable[..., Any], **arguments: Any) -> None:
    # vLLM's own dependency. It finds the title's place beside the environment only while that is as it was.
    import setproctitle  # noqa: PLC0415

    setproctitle.getproctitle()
    # The server's environment is as old as the server; vLLM has added to the replica's since.
    os.environ.update(environment)
    target(**arguments)
