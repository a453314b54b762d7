"""What is kept comes from the gateway, which alone knows the events of a response; `bootstrap` brings them here."""

from collections.abc import Iterator, Mapping, Sequence
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
    def deltas(self) -> Sequence[object]:
        """In which pieces the output came."""
        ...

    @property
    def previous(self) -> str | None: ...

    @property
    def background(self) -> bool:
        """Whether it was begun before, under a lease."""
        ...


class EventReplay(Protocol):
    """Tells the events of one response, each once."""

    def more(self, response: Json, deltas: Sequence[object]) -> Iterator[bytes]:
        """Yield the events of what has come of the response since this was last asked."""
        ...
