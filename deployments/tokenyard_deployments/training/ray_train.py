"""Runs the fine-tuning in Ray Train's workers. All that training takes from Ray stands here."""

import msgspec
import ray
import ray.train
import torch
from pyarrow.fs import FSSpecHandler, PyFileSystem  # type: ignore[import-untyped]
from ray.exceptions import OutOfMemoryError
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.huggingface.transformers import prepare_trainer
from ray.train.torch import TorchConfig, TorchTrainer

from tokenyard.core.training import TrainingSpec, submission_id
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import TrainingFailed, killed_for_memory, out_of_memory
from tokenyard_deployments.training.machine import limit_process, worker_environment
from tokenyard_deployments.training.methods import TrainingWorker, training_method

_RAY_FOLDER = "ray"
_LOW_MEMORY = "running low on memory"


def fit(spec: TrainingSpec) -> None:
    """Train on the cluster; return when every worker is done.

    Raises:
        ray.train.TrainingFailedError: a worker failed; it may have written why into the attempt's folder.
        TrainingFailed: Ray ended a worker because its machine ran out of memory.
    """
    folder = AttemptFolder(spec.output_url)
    resources = spec.resources
    per_worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    ray.init(address="auto", ignore_reinit_error=True)
    trainer = TorchTrainer(
        _run_worker,
        train_loop_config={"spec": msgspec.json.encode(spec)},
        # Workers wait for each other as long as the first one measures a model.
        torch_config=TorchConfig(timeout_s=round(resources.timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=resources.num_workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=submission_id(spec.job, spec.attempt),
            storage_path=f"{folder.root}/{_RAY_FOLDER}",
            storage_filesystem=PyFileSystem(FSSpecHandler(folder.fs)),
            failure_config=FailureConfig(max_failures=0),  # another attempt is the control plane's to make
            worker_runtime_env={"env_vars": worker_environment(resources)},
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        if any(ran_out_of_memory(one) for one in error.worker_failures.values()):
            raise killed_for_memory() from error
        raise
    finally:
        folder.remove(_RAY_FOLDER)


def ran_out_of_memory(error: BaseException) -> bool:
    """Tell whether Ray's watch over memory ended a worker. It says so in a type, or in the words of an actor's death.

    A worker that the kernel kills looks to Ray like one that crashed.
    """
    death = getattr(error, "health_check_failure", error)
    return isinstance(death, OutOfMemoryError) or _LOW_MEMORY in str(death)


def disconnect() -> None:
    """Leave the cluster; whatever this attempt still runs there ends with it."""
    ray.shutdown()


def _run_worker(config: dict[str, bytes]) -> None:
    spec = msgspec.json.decode(config["spec"], type=TrainingSpec)
    context = ray.train.get_context()
    limit_process(spec.resources, workers_here=context.get_local_world_size())
    if context.get_world_rank() == 0:
        AttemptFolder(spec.output_url).begin()
    try:
        worker = TrainingWorker(
            context.get_world_rank(), context.get_world_size(), on_epoch=ray.train.report, prepare=prepare_trainer
        )
        training_method(spec.method)(spec, worker)
    except TrainingFailed as failure:
        AttemptFolder(spec.output_url).write_failure(failure.error)
        raise
    except torch.OutOfMemoryError:
        AttemptFolder(spec.output_url).write_failure(out_of_memory())
        raise
