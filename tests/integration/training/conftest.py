"""One private Ray for all tests of training."""

from collections.abc import Iterator

import pytest

from support.ray_cluster.private_ray import Cluster, private_ray


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with private_ray() as running:
        yield running
