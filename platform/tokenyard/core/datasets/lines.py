"""Cuts a training file into its rows: the same rules of lines for upload, validation and training."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from tokenyard.core.chat_rows import RowProblem

MAX_LINE_BYTES = 1024 * 1024
MAX_ROWS = 1_000_000
MAX_PROBLEMS = 10  # after so many, a file is read no further
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WIDE_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DECODER = msgspec.json.Decoder()


class LineProblem(msgspec.Struct, frozen=True):
    """What is wrong with one line; lines count from 1."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


class Line(NamedTuple):
    """A line that is JSON; whether that is a row is for the rules of rows to say."""

    number: int
    row: object


class LineReader:
    """Takes a file in chunks of any size and holds one line in memory at most.

    Blank lines may stand at the end only. A file without any line is a problem, too.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipping = False  # inside a line that is already known to be too long
        self._line = 0
        self._blank: int | None = None
        self._seen = 0

    def feed(self, chunk: bytes) -> Iterator[Line | LineProblem]:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            yield from self._append(chunk[start:end])
            yield from self._end_line()
            start = end + 1
        yield from self._append(chunk[start:])

    def finish(self) -> Iterator[Line | LineProblem]:
        """Yield what the last line is, where no newline ended it."""
        if self._rest or self._skipping:
            yield from self._end_line()
        if not self._seen:
            yield LineProblem(1, "the file is empty")

    def _append(self, data: bytes) -> Iterator[LineProblem]:
        if self._skipping:
            return
        self._rest += data
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest.clear()
            self._skipping = True
            self._seen += 1
            yield LineProblem(self._line + 1, f"longer than {MAX_LINE_BYTES} bytes")

    def _end_line(self) -> Iterator[Line | LineProblem]:
        self._line += 1
        line = bytes(self._rest)
        self._rest.clear()
        if self._skipping:
            self._skipping = False
        elif not line.strip():
            self._blank = self._blank or self._line
        else:
            yield from self._content(line)

    def _content(self, line: bytes) -> Iterator[Line | LineProblem]:
        if self._blank is not None:  # blank lines at the end are fine, so they are judged when another line follows
            yield LineProblem(self._blank, "the line is empty")
            self._blank = None
        self._seen += 1
        if self._seen > MAX_ROWS:
            yield LineProblem(self._line, f"more than {MAX_ROWS} rows")
            return
        try:
            yield Line(self._line, _decoded(line))
        except RowProblem as problem:
            yield LineProblem(self._line, str(problem))


def _decoded(line: bytes) -> object:
    if line.startswith(_BYTE_ORDER_MARK):
        raise RowProblem("begins with a byte order mark; save the file as UTF-8 without it")
    if line.startswith(_WIDE_BYTE_ORDER_MARKS):
        raise RowProblem("not UTF-8 but UTF-16; save the file as UTF-8")
    if b"\r" in line.rstrip(b"\r"):
        raise RowProblem("a carriage return stands inside the line; end every line with \\n or \\r\\n")
    try:
        row: object = _DECODER.decode(line.decode())
        return row
    except UnicodeDecodeError as error:
        raise RowProblem(f"not UTF-8 (byte {error.start + 1} of the line)") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RowProblem(f"not JSON: {error}") from None
