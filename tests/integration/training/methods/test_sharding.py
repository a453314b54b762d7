"""Spreading a model over workers: what is set fits what the libraries take, and without GPUs it is refused.

No GPU is needed here, so none of it shows that several of them train together.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
import msgspec
import torch
from accelerate import FullyShardedDataParallelPlugin  # type: ignore[import-untyped]
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from trl import DPOConfig, SFTConfig

from support.fakes.tiny_model import save_tiny_model
from support.finetune.training_specs import spec_of, train, write_rows
from tokenyard.core.training import TrainingResources, TrainingSpec
from tokenyard_deployments.training.evaluation.held_out import evaluate
from tokenyard_deployments.training.examples import Example
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.methods import TrainingWorker
from tokenyard_deployments.training.methods.arguments import trainer_arguments
from tokenyard_deployments.training.methods.sharding import sharding_arguments
from tokenyard_deployments.training.resuming import is_finite

SHARDED = TrainingResources(num_workers=2, gpus=1, strategy="fsdp", threads=1)
ROWS = [{"messages": [{"role": "user", "content": "Say it"}, {"role": "assistant", "content": "yes"}]}] * 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def spec(base: Path, tmp_path: Path) -> TrainingSpec:
    file = write_rows(tmp_path / "rows.jsonl", ROWS)
    return spec_of(base, tmp_path, file, method="supervised", n_epochs=1, batch_size=4, resources=SHARDED)


def adapted(base: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False))


@pytest.mark.parametrize("config", [SFTConfig, DPOConfig])
def test_transformers_and_accelerate_take_what_is_set(base: Path, spec: TrainingSpec, config: Any) -> None:
    model = adapted(base)
    plain = trainer_arguments(spec, "/scratch", rows=4, tokens_of=lambda rows: 9 * rows, workers=2)
    assert sharding_arguments(msgspec.structs.replace(SHARDED, strategy="ddp"), model) == {}
    arguments = plain | sharding_arguments(SHARDED, model) | {"use_cpu": True}
    taken = config(**arguments)
    assert (taken.fsdp, taken.gradient_checkpointing, plain["gradient_checkpointing"]) == (True, False, True)
    plugin = FullyShardedDataParallelPlugin(**taken.fsdp_plugin_args)
    assert (plugin.fsdp_version, plugin.state_dict_type.name) == (2, "FULL_STATE_DICT")
    assert (plugin.activation_checkpointing, plugin.reshard_after_forward) == (True, True)
    plugin.set_auto_wrap_policy(model)
    policy = plugin.auto_wrap_policy
    assert policy is not None
    assert {layer.__name__ for layer in policy.keywords["transformer_layer_cls"]} == {"LlamaDecoderLayer"}


def test_without_a_gpu_it_is_refused_in_words(spec: TrainingSpec) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingFailed) as refused:
        train(spec)
    assert (refused.value.error.code, refused.value.error.retryable) == ("gpu_required", False)


def test_all_workers_measure_what_none_has_whole(spec: TrainingSpec) -> None:
    whole = msgspec.structs.replace(spec, resources=msgspec.structs.replace(SHARDED, strategy="ddp"))
    for rank, expected in ((0, (True, True)), (1, (True, False))):
        worker = TrainingWorker(rank, 2, on_epoch=lambda _metrics: None, prepare=lambda trainer: trainer)
        assert (worker.measures(spec), worker.measures(whole)) == expected


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of this process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_a_sharded_model_is_measured_as_it_was_whole(base: Path) -> None:
    model = adapted(base)
    examples = [Example([1, 2, 3, 4], [-100, 2, 3, 4]), Example([5, 6], [-100, 6])]
    expected = evaluate(model, examples)
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.get_base_model().model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(isinstance(weight, DTensor) for weight in trained)
    found = evaluate(model, examples)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert is_finite(model)
    with torch.no_grad():
        trained[0].to_local().fill_(torch.nan)
    assert not is_finite(model)
