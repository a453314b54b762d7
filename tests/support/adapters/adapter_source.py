"""A source that has every adapter, and no files of it."""

from pathlib import Path

from tokenyard.core.adapters import AdapterRef


class NamedCopy:
    def __init__(self, name: str) -> None:
        self.folder = Path(name)

    def release(self) -> None:
        return


class EveryAdapter:
    async def fetch(self, adapter: AdapterRef) -> NamedCopy:
        return NamedCopy(adapter.name)
