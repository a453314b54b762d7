"""Which tests stay in one process where several share the work."""

import pytest

_ENGINES = "tests/integration/serving"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` the tests of one replica, and all others, each have a process of their own."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("serving" if _ENGINES in item.nodeid else "others"))
