"""What an operator's key may ask of seals and of the proofs of invoices."""

from collections.abc import AsyncIterator
from urllib.parse import quote

from tokenyard.clients.platform_api.connection import ApiCaller
from tokenyard.clients.platform_api.proof_shapes import SealInfo, SealVerificationInfo

_SEALS = "/admin/seals"
PROOF_TIMEOUT_S = 900.0  # they read all of many days


class ProofApi(ApiCaller):
    def seals(self) -> AsyncIterator[SealInfo]:
        """Yield the daily seals, the newest first."""
        return self.every(SealInfo, _SEALS)

    async def verify_seals(self, *, first: str | None, last: str | None) -> SealVerificationInfo:
        """Make the seals of some days anew; where it ends before the last one, ask again for those behind."""
        path, days = f"{_SEALS}/verification", {"first": first, "last": last}
        return await self.call(SealVerificationInfo, "GET", path, query=days, timeout_s=PROOF_TIMEOUT_S)

    async def invoice_proof(self, invoice: str) -> bytes:
        """Return the zip file that proves an issued invoice."""
        return await self.content(f"/admin/invoices/{quote(invoice, safe='')}/proof", timeout_s=PROOF_TIMEOUT_S)
