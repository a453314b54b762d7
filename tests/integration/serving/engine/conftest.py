"""vLLM's and Ray's own parts without a running engine, and a gateway that is compared with them."""

from support.gateway_fixture import gateway, pytest_asyncio_loop_factories

__all__ = ["gateway", "pytest_asyncio_loop_factories"]
