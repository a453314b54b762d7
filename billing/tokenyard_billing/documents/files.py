"""Bills as files: what routes answer with."""

import asyncio
from pathlib import Path

from fastapi import Response
from fastapi.responses import HTMLResponse

from tokenyard_billing.documents.credit_note import CreditNoteBill
from tokenyard_billing.documents.document import Bill
from tokenyard_billing.documents.html_page import HtmlWriter
from tokenyard_billing.documents.pdf import PdfWriter
from tokenyard_billing.documents.rendering import RenderingQueue

# The page needs nothing but its own styles, and nothing may frame it or run in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class PdfResponse(Response):
    media_type = "application/pdf"


class BillFiles:
    """`fonts_dir` is a folder of further fonts, or None."""

    def __init__(self, fonts_dir: Path | None = None) -> None:
        self._pdf = PdfWriter(fonts_dir)
        self._html = HtmlWriter()
        self._queue = RenderingQueue()

    async def pdf(self, bill: Bill | CreditNoteBill) -> PdfResponse:
        """Raises as `RenderingQueue.run` and `PdfWriter.write`."""

        async def make() -> bytes:
            return await self._pdf.write(await asyncio.to_thread(bill.document))

        made = await self._queue.run(bill.organization, make)
        return PdfResponse(made, headers=_headers(bill, "pdf"))

    async def html(self, bill: Bill | CreditNoteBill) -> HTMLResponse:
        """Raises as `RenderingQueue.run`."""
        made = await self._queue.run(
            bill.organization, lambda: asyncio.to_thread(lambda: self._html.write(bill.document()))
        )
        return HTMLResponse(made, headers={"content-security-policy": _POLICY, **_headers(bill, "html")})


def _headers(bill: Bill | CreditNoteBill, ending: str) -> dict[str, str]:
    # No number and no id has a character that would end the quotes.
    return {
        "content-disposition": f'inline; filename="{bill.name}.{ending}"',
        "cache-control": "private, no-store",
        "x-content-type-options": "nosniff",
    }
