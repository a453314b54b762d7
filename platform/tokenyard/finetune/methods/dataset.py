"""Checks a training file line by line, from chunks, and says which line is wrong and why."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from tokenyard.core.errors import InvalidRequest
from tokenyard.finetune.methods import METHODS
from tokenyard.finetune.methods.method import FineTuneMethod, Json, RowProblem

MAX_LINE_BYTES = 1024 * 1024
MAX_ROWS = 1_000_000
MAX_PROBLEMS = 10
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DECODER = msgspec.json.Decoder()


class DatasetSummary(msgspec.Struct, frozen=True):
    """A dataset of `method` in figures; `text_tokens` is the sum of `RowSize.text_tokens`."""

    rows: int
    messages: int
    text_tokens: int
    method: str = "supervised"

    def token_bound(self, *, template_tokens: int, template_tokens_per_message: int) -> int:
        """Bound from above what one epoch trains on."""
        return self.text_tokens + self.rows * template_tokens + self.messages * template_tokens_per_message


class LineProblem(msgspec.Struct, frozen=True):
    """What is wrong with one line; lines count from 1."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


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
        self._rest = bytearray()
        self._skipping = False  # inside a line that is already known to be too long
        self._line = 0
        self._blank: int | None = None
        self._rows = 0
        self._messages = 0
        self._text_tokens = 0
        self._problems: list[LineProblem] = []

    @property
    def is_over(self) -> bool:
        """Tell whether more of the file cannot change the answer."""
        return len(self._problems) >= MAX_PROBLEMS

    def feed(self, chunk: bytes) -> None:
        start = 0
        while not self.is_over and (end := chunk.find(b"\n", start)) >= 0:
            self._append(chunk[start:end])
            self._end_line()
            start = end + 1
        if not self.is_over:
            self._append(chunk[start:])

    def finish(self) -> DatasetSummary:
        """Return what was read; a wrong line, or none at all, raises `InvalidDataset`."""
        if self._rest and not self.is_over:
            self._end_line()
        if not self._problems and not self._rows:
            self._problems.append(LineProblem(1, "the file is empty"))
        if self._problems:
            raise InvalidDataset(self._problems)
        return DatasetSummary(self._rows, self._messages, self._text_tokens, self._method.name)

    def _append(self, data: bytes) -> None:
        if self._skipping:
            return
        self._rest += data
        if len(self._rest) > MAX_LINE_BYTES:
            self._problem(self._line + 1, f"longer than {MAX_LINE_BYTES} bytes")
            self._rest.clear()
            self._skipping = True

    def _end_line(self) -> None:
        self._line += 1
        line = bytes(self._rest)
        self._rest.clear()
        if self._skipping:
            self._skipping = False
        elif not line.strip():
            self._blank = self._blank or self._line
        else:
            self._check_line(line)

    def _check_line(self, line: bytes) -> None:
        if self._blank is not None:  # blank lines at the end are fine, so they are judged when another line follows
            self._problem(self._blank, "the line is empty")
            self._blank = None
        if self._rows >= MAX_ROWS:
            self._problem(self._line, f"more than {MAX_ROWS} rows")
            return
        try:
            row = _decoded(line)
            if not self._rows and isinstance(row, dict):
                self._method = next((one for one in self._methods if one.row_field in row), self._method)
            size = self._method.check_row(row)
        except RowProblem as problem:
            self._problem(self._line, str(problem))
        else:
            self._rows += 1
            self._messages += size.messages
            self._text_tokens += size.text_tokens

    def _problem(self, line: int, message: str) -> None:
        if not self.is_over:
            self._problems.append(LineProblem(line, message))


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


def _decoded(line: bytes) -> object:
    if line.startswith(_BYTE_ORDER_MARK):
        raise RowProblem("begins with a byte order mark; save the file as UTF-8 without it")
    try:
        row: object = _DECODER.decode(line.decode())
        return row
    except UnicodeDecodeError as error:
        raise RowProblem(f"not UTF-8 (byte {error.start + 1} of the line)") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RowProblem(f"not JSON: {error}") from None
