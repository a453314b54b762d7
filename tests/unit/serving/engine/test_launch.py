"""The engine's process is forked from a server that is older than what the replica's environment says by then."""

import multiprocessing
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tokenyard_deployments.serving.engine.launch import WORKER, EngineContext, take_cpu_worker


def test_the_engine_gets_the_environment_of_the_moment_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setproctitle")
    context = EngineContext()
    first = context.Process(target=subprocess.run, name="first", kwargs={"args": ["true"]})
    first.start()  # and with it the server
    monkeypatch.setenv("SET_LATER", "yes")
    command = f"printenv SET_LATER > {tmp_path / 'said'}"
    engine = context.Process(target=subprocess.run, name="engine", kwargs={"args": command, "shell": True})
    engine.start()
    for process in (first, engine):
        process.join(30)
        assert process.exitcode == 0
    assert (tmp_path / "said").read_text() == "yes\n"
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("bind", "workers", "executor"), [("nobind", 1, "uni"), ("nobind", 2, "mp"), ("0-1", 1, "mp"), (None, 1, "mp")]
)
def test_the_worker_has_a_process_where_threads_are_bound_or_there_are_several(
    monkeypatch: pytest.MonkeyPatch, bind: str | None, workers: int, executor: str
) -> None:
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    if bind is not None:
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", bind)
    parallel = SimpleNamespace(world_size=workers, distributed_executor_backend="mp")
    take_cpu_worker(SimpleNamespace(parallel_config=parallel))
    assert parallel.distributed_executor_backend == executor
    assert parallel.worker_cls == WORKER
