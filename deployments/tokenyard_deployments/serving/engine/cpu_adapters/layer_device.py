"""Lets layers of 8-bit weights have adapters on a CPU, where vLLM 0.32 cannot tell which device they are on.

It asks the layer's weights, of which there are none left: the library that multiplies has packed them away.
"""

import torch

from tokenyard_deployments.serving.engine.pinned import require


def device_of_layer(_layer: torch.nn.Module) -> torch.device:
    return torch.device("cpu")


def install() -> None:
    """Replace vLLM's own question in this process, which runs on a CPU.

    Raises:
        UnknownEngine: this vLLM does not ask it.
    """
    from vllm.lora.layers import base_linear  # noqa: PLC0415 - vLLM is heavy

    require(base_linear, "_get_lora_device")
    base_linear._get_lora_device = device_of_layer
