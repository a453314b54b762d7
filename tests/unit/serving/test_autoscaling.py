"""How many replicas the tokens inside need; Serve keeps to bounds and delays."""

from types import SimpleNamespace

import pytest

from tokenyard_deployments.serving.autoscaling import TOKENS, replicas_wanted


@pytest.mark.parametrize(
    ("tokens", "queued", "wanted"),
    [
        ([], 0, 0),
        ([], 1, 1),  # it waits in the proxy
        ([0, 0], 0, 0),
        ([1], 0, 1),
        ([1000], 1, 1),
        ([1001], 1, 2),
        ([2500, 0, 600], 3, 4),
    ],
)
def test_replicas_follow_the_tokens_inside(tokens: list[int], queued: int, wanted: int) -> None:
    context = SimpleNamespace(
        aggregated_metrics={TOKENS: dict(enumerate(map(float, tokens)))} if tokens else {},
        total_queued_requests=float(queued) or None,
        total_num_requests=7.0,
        config=SimpleNamespace(target_ongoing_requests=1000.0),
    )
    assert replicas_wanted(context) == (wanted, {})
