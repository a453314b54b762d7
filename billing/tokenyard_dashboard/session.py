"""Who is logged in: an encrypted cookie with an operator's short-lived key, which each page then acts with."""

import base64
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken
from fastapi import Request, Response

COOKIE = "tokenyard_session"
LIFETIME_S = 8 * 3600


class LoginRequired(Exception):
    """The answer is the login page."""


class DashboardSession(NamedTuple):
    """The key that was made for this login, and its id, by which it is revoked."""

    key: str
    key_id: str


class SessionCookie:
    def __init__(self, secret: bytes, *, secure: bool) -> None:
        """Encrypt with 32 secret bytes; `secure` sets the cookie's flag, for pages served over HTTPS."""
        self._cipher = Fernet(base64.urlsafe_b64encode(secret))
        self._secure = secure

    def open(self, response: Response, session: DashboardSession) -> None:
        sealed = self._cipher.encrypt(" ".join(session).encode()).decode()
        response.set_cookie(COOKIE, sealed, max_age=LIFETIME_S, httponly=True, samesite="strict", secure=self._secure)

    def close(self, response: Response) -> None:
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=self._secure)

    def read(self, request: Request) -> DashboardSession:
        """Return the session of a request; no cookie, or a forged or old one, raises `LoginRequired`."""
        try:
            text = self._cipher.decrypt(request.cookies.get(COOKIE, "").encode(), ttl=LIFETIME_S).decode()
        except InvalidToken:
            raise LoginRequired from None
        key, _, key_id = text.partition(" ")
        return DashboardSession(key, key_id)
