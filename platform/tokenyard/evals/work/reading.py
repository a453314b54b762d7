"""The rows of a run: lines of a file, or what stood in the request."""

from collections.abc import Iterable, Sequence
from contextlib import aclosing

import msgspec

from tokenyard.core.datasets.lines import Line, LineProblem, LineReader
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import FileId
from tokenyard.evals.item_schema import item_problem
from tokenyard.evals.parsing import json_problem
from tokenyard.evals.ports import Json, RowsFiles
from tokenyard.evals.runs.data_source import CompletionsSource, GivenRow, GivenRows, data_source_of
from tokenyard.evals.runs.run import EvalRun, Item, RunContent
from tokenyard.storage.blobs import BlobStore

MAX_ROWS = 1000
MAX_ROW_BYTES = 64 * 1024
_OUTPUT_TEXT = "output_text"


class RowsProblem(Exception):
    """What is wrong with the rows; `place` is where, as a line of a file or a field of the request."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place
        self.message = message


class RunRows:
    def __init__(self, files: RowsFiles, blobs: BlobStore) -> None:
        self._files = files
        self._blobs = blobs

    async def read(self, run: EvalRun) -> list[Item]:
        """Return the rows of a run, or raise `RowsProblem`."""
        source = data_source_of(run.content.data_source).source
        if isinstance(source, GivenRows):
            return given_rows(source.content, run.content)
        return await self._of_file(run, FileId(source.id))

    async def _of_file(self, run: EvalRun, file: FileId) -> list[Item]:
        reader, found = LineReader(), list[Item]()
        try:
            await self._files.get(run.organization, file)
            async with aclosing(self._blobs.read_stream(self._files.path(run.organization, file))) as chunks:
                async for chunk in chunks:
                    found += _of_lines(reader.feed(chunk), run.content)
                    _check_count(len(found))
        except (NotFound, FileNotFoundError):
            raise RowsProblem("", "The file was deleted.") from None
        found += _of_lines(reader.finish(), run.content)
        _check_count(len(found))
        return found


def given_rows(rows: Sequence[GivenRow], content: RunContent) -> list[Item]:
    """Return rows that stood in a request, or raise `RowsProblem`."""
    if not rows:
        raise RowsProblem("", "There are no rows.")
    _check_count(len(rows))
    return [_item(row, content, str(place)) for place, row in enumerate(rows)]


def _check_count(count: int) -> None:
    if count > MAX_ROWS:
        raise RowsProblem("", f"There are more than {MAX_ROWS} rows.")


def _of_lines(lines: Iterable[Line | LineProblem], content: RunContent) -> list[Item]:
    found = []
    for line in lines:
        if isinstance(line, LineProblem):
            raise RowsProblem(f"line {line.line}", line.message)
        place = f"line {line.number}"
        try:
            row = msgspec.convert(line.row, GivenRow)
        except msgspec.ValidationError as error:
            raise RowsProblem(place, str(error)[:200]) from None
        found.append(_item(row, content, place))
    return found


def _item(row: GivenRow, content: RunContent, place: str) -> Item:
    unusable = json_problem(row.item)
    if unusable is not None:
        raise RowsProblem(place, f"The row is not usable: {unusable}.")
    if len(msgspec.json.encode(row)) > MAX_ROW_BYTES:
        raise RowsProblem(place, f"The row has more than {MAX_ROW_BYTES} bytes.")
    problem = item_problem(row.item, content.item_schema)
    if problem is not None:
        raise RowsProblem(place, f"{problem}.")
    source_asks = content.data_source.get("type") == CompletionsSource.__struct_config__.tag
    if source_asks or not content.with_samples:
        return Item(row.item)
    return Item(row.item, _given_text(row.sample, place))


def _given_text(sample: Json | None, place: str) -> str:
    text = None if sample is None else sample.get(_OUTPUT_TEXT)
    if not isinstance(text, str):
        raise RowsProblem(place, "The row has no 'sample' with a text 'output_text', which this eval grades.")
    return text
