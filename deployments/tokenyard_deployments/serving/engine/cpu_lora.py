"""Makes LoRA on CPU right and quick: a vLLM plugin that replaces how vLLM computes adapters there.

vLLM 0.32 on CPU picks each row's adapter by indexing with its slot number, and a row of the base model carries -1:
in a batch with other rows it gets the LAST slot's adapter, another tenant's. Here such rows are left alone, and rows
over few or many adapters are multiplied together instead of copying an adapter's weights once for each row.

vLLM loads it in each of its processes through the entry point `vllm.general_plugins`.
"""

from typing import Any

from tokenyard_deployments.serving.engine.cpu_adapters import layer_device

WRAPPER = "tokenyard_deployments.serving.engine.cpu_adapters.layers.CpuAdapters"
_ASKED = "get_punica_wrapper"


def install() -> None:
    """Replace it in this process' vLLM where that runs on CPU; on other platforms change nothing.

    Raises:
        RuntimeError: this vLLM does not have what is replaced here, so it must not serve adapters.
    """
    # vLLM is heavy, and loads this module itself.
    from vllm.platforms import current_platform  # noqa: PLC0415

    if not current_platform.is_cpu():
        return
    platform = type(current_platform)
    if not hasattr(platform, _ASKED):
        raise RuntimeError(f"{platform.__name__} has no {_ASKED}: the CPU LoRA fix does not fit it")
    setattr(platform, _ASKED, classmethod(_wrapper))
    layer_device.install()


def installed() -> bool:
    """Tell whether this process' vLLM computes adapters rightly: it has the fix, or does not need it."""
    from vllm.platforms import current_platform  # noqa: PLC0415

    return not current_platform.is_cpu() or current_platform.get_punica_wrapper() == WRAPPER


def _wrapper(_platform: Any) -> str:
    return WRAPPER
