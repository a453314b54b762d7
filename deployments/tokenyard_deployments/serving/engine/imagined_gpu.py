"""Lets vLLM (pinned: 0.32) work out its configuration for a GPU where there is none, in a process that only checks it.

vLLM's compiled code for GPUs is not there then either, and working out a configuration loads it without running it.
"""

import re
import sys
from types import ModuleType

GPU_BYTES = 80 << 30
CAPABILITY = (9, 0)
"""Of an H100."""
_ASKS_COMPILED_CODE = re.compile(r"cutlass_\w+_support(s_\w+|ed)")
_COMPILED = (
    "vllm._C_stable_libtorch",
    "vllm._moe_C_stable_libtorch",
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
)


def imagine_gpu() -> None:
    """Make vLLM see GPUs of the kind above. Call it before anything else of vLLM is loaded."""
    for name in _COMPILED:
        sys.modules.setdefault(name, ModuleType(name))
    from vllm import platforms  # noqa: PLC0415
    from vllm.platforms.cuda import CudaPlatformBase  # noqa: PLC0415
    from vllm.platforms.interface import DeviceCapability  # noqa: PLC0415

    class ImaginedGpu(CudaPlatformBase):  # type: ignore[misc]
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
            return DeviceCapability(*CAPABILITY)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return "an imagined GPU"

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return GPU_BYTES

        @classmethod
        def get_device_uuid(cls, device_id: int = 0) -> str:
            return f"imagined-{device_id}"

        @classmethod
        def is_fully_connected(cls, physical_device_ids: list[int]) -> bool:
            return True

        @classmethod
        def import_kernels(cls) -> None:
            """There are none."""

    platforms._current_platform = ImaginedGpu()
    from vllm import _custom_ops  # noqa: PLC0415

    for name in filter(_ASKS_COMPILED_CODE.fullmatch, dir(_custom_ops)):
        setattr(_custom_ops, name, lambda *_about: True)
