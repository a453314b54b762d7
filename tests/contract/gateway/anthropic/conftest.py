"""The real `anthropic` client, which knows nothing of the gateway but its address."""

from collections.abc import AsyncIterator

import pytest
from anthropic import AsyncAnthropic

from support.gateway_stack import KEY, GatewayStack


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key=KEY, base_url=gateway.url, max_retries=0) as client:
        yield client
