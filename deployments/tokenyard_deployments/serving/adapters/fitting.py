"""Lets only those adapters through that fit the base model: vLLM's engine may end over one that does not."""

import asyncio
from functools import cached_property
from pathlib import Path

from tokenyard.core.adapters import AdapterNotAllowed, AdapterRef, AdapterRules, BaseShapes, header_size, read_header
from tokenyard.core.replica import ADAPTER_UNFIT
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tokenyard_deployments.base_models.shapes import base_shapes
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.adapters.residency import AdapterSource, LocalCopy


class FittingAdapters:
    """A source of adapters, of which each is held against the shapes of the base model in the folder `base`.

    Their values are not looked at again: the digest says that they are those which passed the gate.
    """

    def __init__(self, source: AdapterSource, base: Path, rules: AdapterRules) -> None:
        self._source = source
        self._base = base
        self._rules = rules

    async def fetch(self, adapter: AdapterRef) -> LocalCopy:
        """Return the local copy of `adapter`; raises as the source does, and `AdapterRejected` for a misfit."""
        copy = await self._source.fetch(adapter)
        try:
            await asyncio.to_thread(self._check, copy.folder)
        except BaseException as error:
            copy.release()
            if isinstance(error, AdapterNotAllowed):
                raise AdapterRejected(error.message, code=ADAPTER_UNFIT) from error
            raise
        return copy

    def _check(self, folder: Path) -> None:
        rank = self._rules.read((folder / ADAPTER_CONFIG).read_bytes())
        with (folder / ADAPTER_WEIGHTS).open("rb") as weights:
            tensors = read_header(weights.read(header_size(weights.read(8)) or 0))
        self._rules.check_tensors(tensors, self._shapes, rank)

    @cached_property
    def _shapes(self) -> BaseShapes | None:
        try:
            return base_shapes(self._base)
        except ValueError:  # in another format than safetensors, whose shapes vLLM alone knows
            return None
