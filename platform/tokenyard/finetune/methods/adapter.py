"""No training: a tenant's own LoRA adapter is taken in as it is, and then checked as one that was trained here."""

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel

from tokenyard.core.adapters import ENGINE_RANKS, AdapterNotAllowed, AdapterRules, WeightsCheck
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.training import LoraSettings
from tokenyard.finetune.methods.method import Json

ADAPTER = "adapter"
"""The name of the method, and the purpose of its files."""


class AdapterSettings(BaseModel, extra="forbid"):
    """What PEFT wrote beside the weights: the content of `adapter_config.json`, as it is."""

    config: Json

    def lora(self, rules: AdapterRules) -> LoraSettings:
        """Return all of the config that is used; one that breaks the rules raises `InvalidRequest`."""
        param = "method.adapter.config"
        if "lora_alpha" not in self.config:
            raise InvalidRequest("The config lacks `lora_alpha`.", code="alpha_not_allowed", param=param)
        try:
            rank = rules.check(self.config)
        except AdapterNotAllowed as refused:
            raise InvalidRequest(refused.message, code=refused.code, param=param) from refused
        alpha, modules = self.config["lora_alpha"], self.config["target_modules"]
        assert isinstance(alpha, int), "the rules say so"
        assert isinstance(modules, list), "the rules say so"
        return LoraSettings(
            rank=rank,
            alpha=alpha,
            target_modules=tuple(sorted(set(modules))),
            use_rslora=bool(self.config.get("use_rslora")),
        )


async def check_weights(check: WeightsCheck, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the file with a header of ours, away from the event loop; raises `AdapterNotAllowed` as soon as it can."""
    async for chunk in chunks:
        written = await asyncio.to_thread(check.feed, chunk)
        if written:
            yield written
    check.finish()


async def check_adapter_upload(chunks: AsyncIterator[bytes]) -> None:
    """Check what can be known of weights without their base model; what breaks a rule raises `InvalidRequest`."""
    try:
        async for _ in check_weights(WeightsCheck(AdapterRules(ENGINE_RANKS[-1])), chunks):
            pass
    except AdapterNotAllowed as refused:
        raise InvalidRequest(refused.message, code=refused.code, param="file") from refused
