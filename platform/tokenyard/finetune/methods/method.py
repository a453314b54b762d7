"""What a fine-tuning method is, as far as the control plane must know it; training has its own half."""

from typing import NamedTuple, Protocol

Json = dict[str, object]


class RowSize(NamedTuple):
    """`text_tokens` bounds the tokens of a row's text from above, without the chat template."""

    messages: int
    text_tokens: int


class FineTuneMethod(Protocol):
    """The rules of one kind of training files; a method may have several.

    `conversations` is how many of them a row is to the model.
    """

    name: str
    conversations: int

    def takes(self, row: Json) -> bool:
        """Tell whether a row, right or wrong, is meant for this method."""
        ...

    def check_row(self, row: object) -> RowSize:
        """Check one row and measure it; a broken rule raises `RowProblem`."""
        ...
