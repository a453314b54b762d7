"""The frozen base spread over the GPUs of all workers (FSDP), each of which otherwise holds it whole."""

from typing import Any

from tokenyard.core.training import TrainingResources


def is_sharded(resources: TrainingResources) -> bool:
    return resources.strategy == "fsdp"


def sharding_arguments(resources: TrainingResources, model: Any) -> dict[str, Any]:
    """Return what a trainer must be told to spread `model`; nothing where each worker holds it whole.

    Each of the layers that transformers names in a model is gathered when it computes. What is saved is whole.
    """
    if not is_sharded(resources):
        return {}
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": sorted(model._no_split_modules),
            "state_dict_type": "FULL_STATE_DICT",
            "activation_checkpointing": True,
        },
        "gradient_checkpointing": False,  # it would gather each layer once more than its own does
    }
