"""Checks a training file line by line, from chunks, and says which line is wrong and why."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from tokenyard.core.chat_rows import RowProblem
from tokenyard.core.datasets.lines import MAX_PROBLEMS, Line, LineProblem, LineReader
from tokenyard.core.errors import InvalidRequest
from tokenyard.finetune.methods import METHODS
from tokenyard.finetune.methods.method import FineTuneMethod, Json


class DatasetSummary(msgspec.Struct, frozen=True):
    """A dataset of `method` in figures; `text_tokens` is the sum of `RowSize.text_tokens`."""

    rows: int
    messages: int
    text_tokens: int
    method: str = "supervised"

    def token_bound(self, *, template_tokens: int, template_tokens_per_message: int) -> int:
        """Bound from above what one epoch trains on."""
        return self.text_tokens + self.rows * template_tokens + self.messages * template_tokens_per_message


class InvalidDataset(ValueError):
    """The file is not a training file; `problems` are the first ten."""

    def __init__(self, problems: Sequence[LineProblem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class DatasetReader:
    """Takes a file in chunks of any size. Holds one line in memory at most, and stops at the tenth problem.

    Its first good row decides which of the methods the file is for.
    """

    def __init__(self, methods: Sequence[FineTuneMethod] = METHODS) -> None:
        self._methods = methods
        self._method = methods[0]
        self._lines = LineReader()
        self._rows = 0
        self._messages = 0
        self._text_tokens = 0
        self._problems: list[LineProblem] = []

    @property
    def is_over(self) -> bool:
        """Tell whether more of the file cannot change the answer."""
        return len(self._problems) >= MAX_PROBLEMS

    def feed(self, chunk: bytes) -> None:
        if not self.is_over:
            self._take(self._lines.feed(chunk))

    def finish(self) -> DatasetSummary:
        """Return what was read; a wrong line, or none at all, raises `InvalidDataset`."""
        if not self.is_over:
            self._take(self._lines.finish())
        if self._problems:
            raise InvalidDataset(self._problems)
        return DatasetSummary(self._rows, self._messages, self._text_tokens, self._method.name)

    def _take(self, lines: Iterator[Line | LineProblem]) -> None:
        for line in lines:
            if isinstance(line, LineProblem):
                self._problems.append(line)
            else:
                self._check(line)
            if self.is_over:
                break

    def _check(self, line: Line) -> None:
        if not self._rows and isinstance(line.row, dict):
            self._method = next((one for one in self._methods if one.takes(line.row)), self._method)
        try:
            size = self._method.check_row(line.row)
        except RowProblem as problem:
            self._problems.append(LineProblem(line.number, str(problem)))
        else:
            self._rows += 1
            self._messages += size.messages
            self._text_tokens += size.text_tokens


async def check_dataset(chunks: AsyncIterator[bytes]) -> DatasetSummary:
    """Check a whole file, away from the event loop; wrong lines raise `InvalidDataset`."""
    reader = DatasetReader()
    async for chunk in chunks:
        await asyncio.to_thread(reader.feed, chunk)
        if reader.is_over:
            break
    return await asyncio.to_thread(reader.finish)


async def check_upload(chunks: AsyncIterator[bytes]) -> Json:
    """Check a training file while it is uploaded; return its summary as JSON. Wrong lines raise `InvalidRequest`."""
    try:
        return msgspec.structs.asdict(await check_dataset(chunks))
    except InvalidDataset as error:
        problems = "\n".join(str(problem) for problem in error.problems)
        message = f"The training file cannot be used:\n{problems}"
        raise InvalidRequest(message, code="invalid_training_file", param="file") from error
