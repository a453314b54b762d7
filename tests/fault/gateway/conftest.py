"""A running gateway with one mock model server, on the event loop that gateways run on."""

from support.gateway_fixture import gateway, pytest_asyncio_loop_factories

__all__ = ["gateway", "pytest_asyncio_loop_factories"]
