"""What is kept comes from the gateway; `bootstrap` hands the keeper to it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

Json = dict[str, object]


class AnswerToKeep(Protocol):
    """An answer as the gateway gives it."""

    @property
    def kind(self) -> str: ...

    @property
    def id(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def input(self) -> Sequence[Json]: ...

    @property
    def output(self) -> Json: ...

    @property
    def previous(self) -> str | None: ...

    @property
    def background(self) -> bool:
        """Whether it was begun before, under a lease."""
        ...
