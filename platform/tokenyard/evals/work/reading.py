"""The rows of a run: lines of a file, or what stood in the request."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

import msgspec

from tokenyard.core.datasets.lines import Line, LineProblem, LineReader
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import FileId, OrganizationId
from tokenyard.core.schemas import json_problem
from tokenyard.evals.item_schema import ItemSchema
from tokenyard.evals.ports import Json, RowsFiles
from tokenyard.evals.runs.data_source import CompletionsSource, GivenRow, GivenRows, data_source_of
from tokenyard.evals.runs.run import EvalRun, Item, RunContent
from tokenyard.storage.blobs import BlobStore

MAX_ROWS = 1000
MAX_ROW_BYTES = 64 * 1024
_OUTPUT_TEXT = "output_text"


class RowsProblem(Exception):
    """What is wrong with the rows; `place` is where, as a line of a file or a field of the request."""

    code = "invalid_rows"

    def __init__(self, place: str, message: str) -> None:
        message = message.replace("\x00", "\\u0000")  # PostgreSQL carries none
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place
        self.message = message


class RunRows:
    def __init__(self, files: RowsFiles, blobs: BlobStore) -> None:
        self._files = files
        self._blobs = blobs

    async def read(self, run: EvalRun) -> AsyncGenerator[list[Item], None]:
        """Yield the rows of a run, never more at once than a chunk of a file has, or raise `RowsProblem`."""
        source = data_source_of(run.content.data_source).source
        if isinstance(source, GivenRows):
            yield await asyncio.to_thread(given_rows, source.content, run.content)
            return
        rows, count = _Rows(run.content), 0
        async with aclosing(self._lines(run.organization, FileId(source.id))) as parts:
            async for lines in parts:
                items = await asyncio.to_thread(rows.of_lines, lines)
                count += len(items)
                _check_count(count)
                yield items

    async def _lines(
        self, organization: OrganizationId, file: FileId
    ) -> AsyncGenerator[Iterable[Line | LineProblem], None]:
        reader = LineReader()
        try:
            await self._files.get(organization, file)
            async with aclosing(self._blobs.read_stream(self._files.path(organization, file))) as chunks:
                async for chunk in chunks:
                    yield reader.feed(chunk)
        except (NotFound, FileNotFoundError):
            raise RowsProblem("", "The file was deleted.") from None
        yield reader.finish()


def given_rows(rows: Sequence[GivenRow], content: RunContent) -> list[Item]:
    """Return rows that stood in a request, whose JSON was checked, or raise `RowsProblem`."""
    if not rows:
        raise RowsProblem("", "There are no rows.")
    _check_count(len(rows))
    checked = _Rows(content)
    return [checked.item(row, str(place)) for place, row in enumerate(rows)]


def _check_count(count: int) -> None:
    if count > MAX_ROWS:
        raise RowsProblem("", f"There are more than {MAX_ROWS} rows.")


class _Rows:
    """The rules for the rows of one run."""

    def __init__(self, content: RunContent) -> None:
        self._schema = ItemSchema(content.item_schema)
        asks = content.data_source.get("type") == CompletionsSource.__struct_config__.tag
        self._with_answers = content.with_samples and not asks

    def of_lines(self, lines: Iterable[Line | LineProblem]) -> list[Item]:
        return [self._of_line(line) for line in lines]

    def item(self, row: GivenRow, place: str) -> Item:
        if len(msgspec.json.encode(row)) > MAX_ROW_BYTES:
            raise RowsProblem(place, f"The row has more than {MAX_ROW_BYTES} bytes.")
        problem = self._schema.problem(row.item)
        if problem is not None:
            raise RowsProblem(place, f"{problem}.")
        return Item(row.item, _given_text(row.sample, place) if self._with_answers else None)

    def _of_line(self, line: Line | LineProblem) -> Item:
        if isinstance(line, LineProblem):
            raise RowsProblem(f"line {line.line}", line.message)
        place = f"line {line.number}"
        unusable = json_problem(line.row)
        if unusable is not None:
            raise RowsProblem(place, f"The row is not usable: {unusable}.")
        try:
            row = msgspec.convert(line.row, GivenRow)
        except msgspec.ValidationError as error:
            raise RowsProblem(place, str(error)[:200]) from None
        return self.item(row, place)


def _given_text(sample: Json | None, place: str) -> str:
    text = None if sample is None else sample.get(_OUTPUT_TEXT)
    if not isinstance(text, str):
        raise RowsProblem(place, "The row has no 'sample' with a text 'output_text', which this eval grades.")
    return text
