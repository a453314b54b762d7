"""The model's `fairness` on its way to the engine's process, within vLLM's `additional_config`."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tokenyard.core.model_files.accelerators import FairnessSpec

SCHEDULER = "tokenyard_deployments.serving.engine.scheduling.scheduler.fair_scheduler"
_KEY = "tokenyard_fairness"


def scheduler_arguments(fairness: FairnessSpec) -> dict[str, object]:
    """Return the engine arguments that make vLLM schedule fairly."""
    return {"scheduler_cls": SCHEDULER, "additional_config": {_KEY: msgspec.to_builtins(fairness)}}


def fairness_of(additional_config: Mapping[str, Any]) -> FairnessSpec:
    return msgspec.convert(additional_config[_KEY], FairnessSpec)
