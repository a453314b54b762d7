"""What tests of training share: one private Ray, and how many threads they compute with."""

from collections.abc import Iterator

import pytest

from support.ray_cluster.private_ray import Cluster, private_ray


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with private_ray() as running:
        yield running


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads that share a busy core wait for each other for seconds."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
