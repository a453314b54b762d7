"""Sends an earlier reply again, or the rest of it; nothing is run or charged."""

from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.idempotency.exchange import KeyedExchange
from tokenyard.gateway.idempotency.recording import NoSuchEvent, RecordedReply

REPLAYED = (b"idempotent-replayed", b"true")


class Replay:
    def __init__(self, reply: RecordedReply, after: int, exchange: KeyedExchange) -> None:
        """Of a stream, only what came behind event `after` is sent."""
        self._reply = reply
        self._after = after
        self._exchange = exchange

    async def send(self) -> None:
        """Send it.

        Raises:
            InvalidRequest: the stream had fewer events.
            RateLimited, Unavailable: too many bytes of the organization, or of all, are under way.
        """
        client, place, telemetry = self._exchange
        try:
            body = self._reply.after(self._after)
        except NoSuchEvent as error:
            message = "The reply has no event with the id in the 'Last-Event-ID' header."
            raise InvalidRequest(message, param="Last-Event-ID") from error
        place.came(len(body))  # it stays in memory until the client has taken it
        telemetry.replays(self._reply.request)
        length = (b"content-length", str(len(body)).encode())
        with client.watched():
            await client.start(self._reply.status, telemetry.headers([*self._reply.headers, length, REPLAYED]))
            await client.finish(body)
