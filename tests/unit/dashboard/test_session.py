"""The cookie of a session: it hides its key, and only a fresh one of our own counts."""

import base64
import time

import pytest
from cryptography.fernet import Fernet
from fastapi import Request, Response

from tokenyard_dashboard.session import COOKIE, LIFETIME_S, DashboardSession, LoginRequired, SessionCookie

SECRET = b"s" * 32
SESSION = DashboardSession("ty-admin-secret", "key_1")


def sealed(secret: bytes = SECRET, *, secure: bool = True) -> tuple[str, str]:
    """Return the cookie's value and its attributes."""
    response = Response()
    SessionCookie(secret, secure=secure).open(response, SESSION)
    value, _, attributes = response.headers["set-cookie"].removeprefix(f"{COOKIE}=").partition("; ")
    return value.strip('"'), attributes


def read(value: str) -> DashboardSession:
    scope = {"type": "http", "headers": [(b"cookie", f"{COOKIE}={value}".encode())]}
    return SessionCookie(SECRET, secure=True).read(Request(scope))


def test_the_key_comes_back_and_is_not_readable() -> None:
    value, attributes = sealed()
    assert read(value) == SESSION
    assert "ty-admin" not in value
    assert b"ty-admin" not in base64.urlsafe_b64decode(value)
    for attribute in ("HttpOnly", "SameSite=strict", "Secure", f"Max-Age={LIFETIME_S}"):
        assert attribute in attributes
    assert "Secure" not in sealed(secure=False)[1]


def test_forged_foreign_and_old_cookies_do_not_count() -> None:
    value, _ = sealed()
    cipher = Fernet(base64.urlsafe_b64encode(SECRET))
    old = cipher.encrypt_at_time(" ".join(SESSION).encode(), int(time.time()) - LIFETIME_S - 60).decode()
    for wrong in ("", "x", "ü", value[:-4] + "AAA=", value[1:], sealed(b"t" * 32)[0], old):
        with pytest.raises(LoginRequired):
            read(wrong)
