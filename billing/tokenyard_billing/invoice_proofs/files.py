"""Proofs as files: made whole in a temporary file, so that a slow reader holds no transaction open, and then sent."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO
from weakref import WeakKeyDictionary

from fastapi.responses import StreamingResponse
from sqlalchemy import Select
from starlette.types import Receive, Scope, Send

from tokenyard.core.errors import Conflict, NotFound, RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard_billing.documents.rendering import RenderingQueue
from tokenyard_billing.invoice_proofs.archive import Archive
from tokenyard_billing.invoice_proofs.contents import InvoiceContents
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.invoicing.drafts import DRAFT
from tokenyard_billing.invoicing.store import WHOLE
from tokenyard_billing.pricing.prices import PriceList, UnknownPrice

TIME_LIMIT_S = 300.0
STATEMENT_TIMEOUT_S = 60.0
_IN_MEMORY = 4 * 1024 * 1024
_PART = 256 * 1024
MAX_OPEN, MAX_OPEN_OF_ONE = 64, 8
"""So many are there at once, from the making of each until it was sent: who reads slowly keeps memory and disk."""
_LOG = logging.getLogger(__name__)


class ProofResponse(StreamingResponse):
    """Sends a file, and lets go of it however that ends."""

    media_type = "application/zip"

    def __init__(self, file: IO[bytes], name: str, status_code: int = 200) -> None:
        self._file = file
        size = file.seek(0, 2)
        file.seek(0)
        headers = {
            "content-disposition": f'attachment; filename="{name}"',
            "content-length": str(size),
            "cache-control": "private, no-store",
        }
        super().__init__(_parts(file), status_code, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


class ProofFiles:
    """Makes few of them at a time, and few of one organization."""

    def __init__(self, database: Database, prices: PriceList) -> None:
        self._database = database
        self._prices = prices
        self._queue = RenderingQueue(TIME_LIMIT_S)
        self._made_for: WeakKeyDictionary[IO[bytes], OrganizationId] = WeakKeyDictionary()

    async def proof(self, query: Select[Invoice]) -> ProofResponse:
        """Return the proof of the invoice that `query` asks for.

        Raises:
            NotFound: there is none.
            Conflict: it is a draft.
            Unavailable: too many are being made or sent, or it took too long, or a rate card was not read yet, or no
                file can be written.
            RateLimited: too many of this organization are being made or sent.
        """
        async with self._database.reading() as session:
            invoice = await session.scalar(query.options(*WHOLE))
        if invoice is None:
            raise NotFound("No such invoice.")
        if invoice.state == DRAFT:
            raise Conflict(
                f"The invoice {invoice.id} is a draft, which still changes: it has no proof until it is issued."
            )
        owner = OrganizationId(invoice.organization)
        self._check_open(owner)
        file = await self._queue.run(owner, lambda: self._made(invoice))
        return ProofResponse(file, f"{invoice.number}-proof.zip")

    def _check_open(self, organization: OrganizationId) -> None:
        owners = [owner for file, owner in self._made_for.items() if not file.closed]
        if owners.count(organization) >= MAX_OPEN_OF_ONE:
            raise RateLimited("Too many of your proofs are being sent. Please read these first.")
        if len(owners) >= MAX_OPEN:
            raise Unavailable("Too many proofs are being sent. Please try again.")

    async def _made(self, invoice: Invoice) -> IO[bytes]:
        file = SpooledTemporaryFile(_IN_MEMORY)
        self._made_for[file] = OrganizationId(invoice.organization)
        archive = Archive(file)
        try:
            async with self._database.snapshot(statement_timeout_s=STATEMENT_TIMEOUT_S) as session:
                await InvoiceContents(session, invoice, self._prices).write(archive)
            archive.close()
        except BaseException as error:
            with suppress(Exception):  # it would try again when it is forgotten, in a file that is gone
                archive.close()
            file.close()
            if isinstance(error, UnknownPrice):
                raise Unavailable("A rate card of this invoice cannot be read right now. Please try again.") from error
            if isinstance(error, OSError):
                _LOG.exception("no proof can be written")
                raise Unavailable("A proof cannot be written right now. Please try again.") from error
            raise
        return file


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    while part := file.read(_PART):
        yield part
