"""Documents as PDF, each set by a process of its own."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from tokenyard.core.errors import Unavailable
from tokenyard_billing.documents import typesetting
from tokenyard_billing.documents.document import BillDocument
from tokenyard_billing.documents.typesetting import TypesettingOrder

_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")


class PdfWriter:
    """`fonts_dir` is a folder of further fonts, for scripts that Typst's own do not have."""

    def __init__(self, fonts_dir: Path | None = None) -> None:
        self._fonts_dir = "" if fonts_dir is None else str(fonts_dir.absolute())

    async def write(self, document: BillDocument) -> bytes:
        """Return the file: the same bytes for the same document. The process ends with who waits for it.

        Raises:
            Unavailable: it could not be made.
        """
        order = await asyncio.to_thread(self._order, document)
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", typesetting.__name__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**kept, "RAYON_NUM_THREADS": "1"},
        )
        try:
            made, complaints = await process.communicate(order)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise Unavailable(f"The PDF was not made: {_last_line(complaints)}")
        return made

    def _order(self, document: BillDocument) -> bytes:
        return msgspec.json.encode(
            TypesettingOrder(msgspec.Raw(msgspec.json.encode(document)), document.dated_s, self._fonts_dir)
        )


def _last_line(complaints: bytes) -> str:
    return (complaints.decode(errors="replace").strip().splitlines() or ["it ended"])[-1][:200]
