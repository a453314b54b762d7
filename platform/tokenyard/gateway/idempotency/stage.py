"""Between the body and the path: an earlier reply under the same key, or a request that runs on without its client."""

import logging
import re

import msgspec
from redis.exceptions import RedisError

from tokenyard.core.admission import PrincipalOutdated
from tokenyard.core.errors import InvalidRequest, TokenyardError, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.core.principal import Principal
from tokenyard.gateway.idempotency import refusals
from tokenyard.gateway.idempotency.encryption import ReplyCipher, Unreadable
from tokenyard.gateway.idempotency.exchange import KeyedExchange
from tokenyard.gateway.idempotency.recording import RecordedReply
from tokenyard.gateway.idempotency.replay import Replay
from tokenyard.gateway.idempotency.run import KeyedRun
from tokenyard.gateway.idempotency.store import IdempotencyStore, KeyClaim, KeyedRequest, KeyState

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_EVENT = re.compile(r"[0-9]{1,9}")
_LOG = logging.getLogger(__name__)


class AskedOnce(msgspec.Struct, frozen=True):
    """What a client asks for under an idempotency key. Of a stream's reply it has the events up to `after`."""

    key: str
    endpoint: str
    body: bytes
    after: int

    @classmethod
    def read(cls, key: str | None, last_event: str | None, endpoint: str, body: bytes, *, stream: bool) -> "AskedOnce":
        """Check the two headers; raises InvalidRequest."""
        if key is None:
            message = "The 'Last-Event-ID' header is only allowed with an 'Idempotency-Key'."
            raise InvalidRequest(message, param="Last-Event-ID")
        if not _KEY.fullmatch(key):
            message = "The 'Idempotency-Key' header must have 1 to 255 printable ASCII characters."
            raise InvalidRequest(message, param="Idempotency-Key")
        if last_event is None:
            return cls(key, endpoint, body, after=0)
        if not _EVENT.fullmatch(last_event):
            raise InvalidRequest("The 'Last-Event-ID' header must be the 'id' of an event.", param="Last-Event-ID")
        if not stream:
            raise InvalidRequest("The 'Last-Event-ID' header is only allowed with 'stream'.", param="Last-Event-ID")
        return cls(key, endpoint, body, int(last_event))


class IdempotencyStage:
    """One of these a gateway process."""

    def __init__(self, store: IdempotencyStore, cipher: ReplyCipher, *, renewal_ms: int) -> None:
        self._store = store
        self._cipher = cipher
        self._renewal_s = renewal_ms / 1000

    async def begin(self, asked: AskedOnce, principal: Principal, exchange: KeyedExchange) -> KeyedRun | Replay:
        """Return the reply that there is under the key, or else what the request is to run in.

        Raises:
            Conflict: the request with this key still runs.
            IdempotencyKeyReused: the key was used for another request.
            Gone: the request ran, and its reply is not there.
            NotFound: the rest of a reply is wanted that is not there.
            RateLimited: too much is kept for the organization.
            PrincipalOutdated: the caller was changed; look it up and ask again.
            Unavailable: Redis does not answer, or has no memory left for this.
        """
        organization = principal.organization
        name = self._cipher.name(organization, principal.project, asked.key)
        fingerprint = self._cipher.fingerprint(organization, asked.endpoint, asked.body)
        keyed = KeyedRequest(name, fingerprint, exchange.telemetry.request_id)
        try:
            claim = await self._store.claim(organization, keyed, revision=principal.revision, only_kept=asked.after > 0)
        except RedisError as error:
            raise Unavailable("Idempotency keys cannot be looked up right now. Please try again.") from error
        if claim.state is KeyState.CLAIMED:
            return KeyedRun(self._store, self._cipher, organization, keyed, exchange, renewal_s=self._renewal_s)
        if claim.state is KeyState.KEPT:
            return Replay(await self._decrypted(organization, name, claim.reply), asked.after, exchange)
        if claim.state is KeyState.OUTDATED:
            raise PrincipalOutdated
        raise _refusal(claim)

    async def _decrypted(self, organization: OrganizationId, name: str, encrypted: bytes) -> RecordedReply:
        try:
            return RecordedReply.unpacked(await self._cipher.decrypt(organization, name, encrypted))
        except Unreadable as error:
            _LOG.warning("what is kept as %s for %s cannot be read: %s", name, organization, error)
            raise refusals.gone() from error


def _refusal(claim: KeyClaim) -> TokenyardError:
    match claim.state:
        case KeyState.OTHER_BODY:
            return refusals.other_body()
        case KeyState.RUNNING:
            return refusals.still_running(claim.ms / 1000)
        case KeyState.UNKNOWN:
            return refusals.nothing_to_resume()
        case KeyState.FULL:
            return refusals.too_much_kept(claim.ms / 1000)
        case KeyState.SCARCE:
            return refusals.no_memory()
        case _:
            return refusals.gone()
