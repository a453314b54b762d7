"""Documents as PDF, by Typst: it takes their text as data, never as markup, and reads no file and no network."""

from functools import cached_property
from pathlib import Path

import msgspec
import typst

from tokenyard_billing.documents.document import InvoiceDocument

_TEMPLATE = Path(__file__).parent / "templates" / "invoice.typ"


class PdfWriter:
    """`fonts_dir` is a folder of further fonts, for scripts that Typst's own do not have.

    The machine's fonts are left alone: a document is the same wherever it is written.
    """

    def __init__(self, fonts_dir: Path | None = None) -> None:
        self._fonts_dir = fonts_dir

    def write(self, document: InvoiceDocument) -> bytes:
        """Return the file: the same bytes for the same document. It takes seconds of a long one, without the GIL."""
        return typst.compile(
            self._template,
            font_paths=self._fonts,
            ignore_system_fonts=True,
            format="pdf",
            sys_inputs={"document": msgspec.json.encode(document).decode()},
            timestamp=document.dated_s,
        )

    @cached_property
    def _template(self) -> bytes:
        return _TEMPLATE.read_bytes()

    @cached_property
    def _fonts(self) -> typst.Fonts:
        folders = [] if self._fonts_dir is None else [self._fonts_dir]
        return typst.Fonts(include_system_fonts=False, font_paths=folders)
