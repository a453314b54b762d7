"""Who is logged in: a signed cookie that holds the id of an operator's key, never the key."""

from fastapi import Request, Response
from itsdangerous import BadSignature, TimestampSigner

from tokenyard.core.ids import ApiKeyId
from tokenyard_dashboard.ports import OperatorKeys

COOKIE = "tokenyard_session"
LIFETIME_S = 12 * 3600


class LoginRequired(Exception):
    """Nobody is logged in: the answer is the login page."""


class Sessions:
    """Opens, checks and closes sessions."""

    def __init__(self, secret: bytes, keys: OperatorKeys, *, secure: bool) -> None:
        """Sign with `secret`; `secure` sets the cookie's flag, for pages served over HTTPS."""
        self._signer = TimestampSigner(secret, salt="dashboard-session")
        self._keys = keys
        self._secure = secure

    def open(self, response: Response, key: ApiKeyId) -> None:
        """Log the holder of `key` in."""
        response.set_cookie(
            COOKIE,
            self._signer.sign(key).decode(),
            max_age=LIFETIME_S,
            httponly=True,
            samesite="strict",
            secure=self._secure,
        )

    def close(self, response: Response) -> None:
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=self._secure)

    async def require(self, request: Request) -> ApiKeyId:
        """Return the operator's key id; a FastAPI dependency.

        Raises:
            LoginRequired: no cookie, a forged or old one, or the key no longer counts.
        """
        try:
            signed = self._signer.unsign(request.cookies.get(COOKIE, ""), max_age=LIFETIME_S)
        except BadSignature:
            raise LoginRequired from None
        key = ApiKeyId(signed.decode())
        if not await self._keys.is_active(key):
            raise LoginRequired
        return key
