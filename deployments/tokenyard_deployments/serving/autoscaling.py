"""How many replicas Serve keeps of a model whose file bounds them: as many as its tokens need."""

import math
from typing import Any

from tokenyard.core.model_files.accelerators import AutoscalingSpec

TOKENS = "tokens"
"""What a replica reports: the tokens of all that is inside, waiting and running, at their longest."""
POLICY = "tokenyard_deployments.serving.autoscaling:replicas_wanted"
LOOK_BACK_S = 15.0


def autoscaling_config(spec: AutoscalingSpec, replicas: int) -> dict[str, Any]:
    """Return Serve's own. Its target is of tokens here, so that another target starts no replica anew."""
    return {
        "min_replicas": spec.min_replicas,
        "initial_replicas": replicas,
        "max_replicas": spec.max_replicas,
        "target_ongoing_requests": float(spec.target_tokens),
        "look_back_period_s": LOOK_BACK_S,
        "upscale_delay_s": spec.upscale_delay_s,
        "downscale_delay_s": spec.downscale_delay_s,
        "downscale_to_zero_delay_s": spec.to_zero_delay_s,
        "policy": {"policy_function": POLICY},
    }


def replicas_wanted(context: Any) -> tuple[int, dict[str, Any]]:
    """Return how many replicas are wanted; Serve keeps to bounds and delays itself, and wakes a model that sleeps.

    `context` is Ray's `AutoscalingContext`. Its requests tell nothing: looks at a replica's state are among them. One
    that waits in Serve's proxy is in no replica yet.
    """
    tokens = sum(context.aggregated_metrics.get(TOKENS, {}).values())
    wanted = math.ceil(tokens / context.config.target_ongoing_requests)
    return max(wanted, int((context.total_queued_requests or 0) > 0)), {}
