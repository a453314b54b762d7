"""The dashboard as an app of its own: login, pages, errors as pages. It reads only; nothing in it changes money."""

import logging
import re
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

from tokenyard.clients.platform_api.connection import ApiConnection, ApiFailed
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.core.money import to_dollars
from tokenyard.web.request_guard import RequestGuard
from tokenyard_dashboard.pages import router
from tokenyard_dashboard.session import LIFETIME_S, DashboardSession, LoginRequired, SessionCookie

_LOG = logging.getLogger(__name__)
_HERE = Path(__file__).parent
# Everything is served from here: no script, no other origin, no frame.
POLICY = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'"
KEY_NAME = "dashboard session"
API_AWAY = "The platform's API does not answer. Try again in a moment; `tokenyard doctor` says what is wrong."
_KEY = re.compile(r"[!-~]{1,200}", re.ASCII)  # what a header can carry


def create_app(connection: ApiConnection, cookie: SessionCookie) -> FastAPI:
    app = FastAPI(title="Tokenyard dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    templates = _templates()
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.include_router(router(connection, cookie, templates))
    _add_login(app, connection, cookie, templates)
    _add_error_pages(app, cookie, templates)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.middleware("http")
    async def headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "no-referrer"
        return response

    app.add_middleware(RequestGuard)
    return app


def _add_login(app: FastAPI, connection: ApiConnection, cookie: SessionCookie, templates: Jinja2Templates) -> None:
    def login_page(request: Request, message: str = "", status: int = 200) -> Response:
        return templates.TemplateResponse(request, "login.html", {"message": message}, status_code=status)

    @app.get("/login", response_class=HTMLResponse)
    async def ask(request: Request) -> Response:
        return login_page(request)

    @app.post("/login")
    async def login(request: Request, key: Annotated[str, Form()] = "") -> Response:
        """Exchange an admin key for one that ends with the session; only that one is kept."""
        admin_key = key.strip()
        try:
            if not _KEY.fullmatch(admin_key):
                raise ApiFailed("not a key", HTTPStatus.UNAUTHORIZED)
            made = await OperatorApi(connection, admin_key).create_operator_key(name=KEY_NAME, expires_in_s=LIFETIME_S)
        except ApiFailed as error:
            if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                return login_page(request, "That is not a valid admin key.", HTTPStatus.UNAUTHORIZED)
            return login_page(request, *_explained(error))
        answer = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
        cookie.open(answer, DashboardSession(made.value, made.id))
        return answer

    @app.post("/logout")
    async def logout(request: Request) -> Response:
        session = cookie.read(request)
        try:
            await OperatorApi(connection, session.key).revoke_operator_key(session.key_id)
        except ApiFailed as error:
            if error.status != HTTPStatus.UNAUTHORIZED:  # else it has ended already
                _LOG.warning("the key %s of a session that was left ends only by itself: %s", session.key_id, error)
        return _to_login(cookie)


def _add_error_pages(app: FastAPI, cookie: SessionCookie, templates: Jinja2Templates) -> None:
    def error_page(request: Request, message: str, status: int) -> Response:
        return templates.TemplateResponse(request, "error.html", {"message": message}, status_code=status)

    @app.exception_handler(LoginRequired)
    async def no_session(_request: Request, _error: LoginRequired) -> Response:
        return _to_login(cookie)

    @app.exception_handler(ApiFailed)
    async def failed(request: Request, error: ApiFailed) -> Response:
        if error.status == HTTPStatus.UNAUTHORIZED:  # the session's key was revoked or has expired
            return _to_login(cookie)
        return error_page(request, *_explained(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return error_page(request, f"{error.detail.rstrip('.')}.", error.status_code)


def _to_login(cookie: SessionCookie) -> Response:
    answer = RedirectResponse("/login", status_code=HTTPStatus.SEE_OTHER)
    cookie.close(answer)
    return answer


def _explained(error: ApiFailed) -> tuple[str, int]:
    """Return a sentence for the operator, and the page's status."""
    if error.status:
        return str(error), error.status
    _LOG.warning("%s", error)
    return API_AWAY, HTTPStatus.SERVICE_UNAVAILABLE


def _templates() -> Jinja2Templates:
    templates = Jinja2Templates(_HERE / "templates")
    templates.env.filters["dollars"] = lambda nano: f"${to_dollars(nano)}"
    templates.env.filters["count"] = lambda number: f"{number:,}"
    templates.env.filters["moment"] = lambda seconds: f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    return templates
