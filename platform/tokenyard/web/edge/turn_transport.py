"""A connection that is written to once a turn of the event loop."""

import asyncio

TURN_BYTES = 64 * 1024


class TurnTransport(asyncio.Transport):
    """Sends together what is written in one turn of the event loop: each system call may have to wake who reads."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._written: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(bytes(data))
        self._bytes += len(data)
        if self._bytes > TURN_BYTES:
            self._send()

    def _send(self) -> None:
        if not self._written:
            return
        data = b"".join(self._written)
        self._written.clear()
        self._bytes = 0
        if not self._inner.is_closing():
            self._inner.write(data)

    def close(self) -> None:
        self._send()
        self._inner.close()

    def abort(self) -> None:
        self._inner.abort()

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._inner.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()
