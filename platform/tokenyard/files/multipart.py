"""Reads a multipart body as it arrives: small fields whole, the file in chunks, nothing else kept in memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tokenyard.core.errors import InvalidRequest

MAX_FIELD_BYTES = 8 * 1024
MAX_PARTS = 16


@dataclass(frozen=True)
class Field:
    name: str
    value: str


@dataclass(frozen=True)
class FileStart:
    """A file begins; its chunks follow."""

    name: str
    filename: str


@dataclass(frozen=True)
class FileChunk:
    """Some bytes of the file that began last."""

    data: bytes


@dataclass(frozen=True)
class FileEnd:
    """The file is complete."""


Part = Field | FileStart | FileChunk | FileEnd


async def read_multipart(content_type: str, body: AsyncIterator[bytes]) -> AsyncIterator[Part]:
    """Yield the parts of a body in their order; one that is malformed, cut or too large raises `InvalidRequest`."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("The body must be multipart/form-data with a boundary.")
    assembler = _Assembler(boundary)
    async for chunk in body:
        for part in assembler.feed(chunk):
            yield part
    assembler.finish()


class _Assembler:
    def __init__(self, boundary: bytes) -> None:
        self._ready: list[Part] = []
        self._parts = 0
        self._ended = False
        self._header = [b"", b""]
        self._disposition = b""
        self._name = ""
        self._value: bytearray | None = None  # None while a file is read
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest("The multipart boundary is not valid.") from error

    def feed(self, chunk: bytes) -> list[Part]:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest("The multipart body is malformed.") from error
        ready, self._ready = self._ready, []
        return ready

    def finish(self) -> None:
        if not self._ended:
            raise InvalidRequest("The multipart body ended too early.")

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The body has more than {MAX_PARTS} parts.")
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header[0]) + len(self._header[1]) > MAX_FIELD_BYTES:
            raise InvalidRequest("A multipart header is too long.")

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            self._value = None
            self._ready.append(FileStart(self._name, options[b"filename"].decode("utf-8", "replace")))
        else:
            self._value = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            self._ready.append(FileChunk(data[start:end]))
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise InvalidRequest(f"The field is longer than {MAX_FIELD_BYTES} bytes.", param=self._name)

    def _part_end(self) -> None:
        if self._value is None:
            self._ready.append(FileEnd())
        else:
            self._ready.append(Field(self._name, self._value.decode("utf-8", "replace")))

    def _end(self) -> None:
        self._ended = True
