"""The dashboard as an app of its own: login, pages, errors as pages."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.middleware.base import RequestResponseEndpoint

from tokenyard.core.errors import PermissionDenied, TokenyardError, Unauthenticated
from tokenyard.core.money import to_dollars
from tokenyard.web.auth import Authenticator
from tokenyard.web.request_guard import RequestGuard
from tokenyard_dashboard.pages import Sources, router
from tokenyard_dashboard.session import LoginRequired, Sessions

_HERE = Path(__file__).parent
# Everything is served from here: no script, no other origin, no frame.
POLICY = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'"


def create_app(sources: Sources, sessions: Sessions, authenticator: Authenticator) -> FastAPI:
    """Return the dashboard. It reads only; nothing in it changes money."""
    app = FastAPI(title="Tokenyard dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    templates = _templates()
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.include_router(router(sources, sessions, templates))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/login", response_class=HTMLResponse)
    async def login_page(request: Request) -> Response:
        return templates.TemplateResponse(request, "login.html", {"message": ""})

    @app.post("/login")
    async def login(request: Request, key: Annotated[str, Form(max_length=200)]) -> Response:
        try:
            operator = await authenticator.operator(key.strip())
        except (Unauthenticated, PermissionDenied):
            message = "That is not a valid admin key."
            return templates.TemplateResponse(request, "login.html", {"message": message}, status_code=401)
        answer = RedirectResponse("/", status_code=303)
        sessions.open(answer, operator.key)
        return answer

    @app.post("/logout")
    async def logout() -> Response:
        answer = RedirectResponse("/login", status_code=303)
        sessions.close(answer)
        return answer

    @app.exception_handler(LoginRequired)
    async def to_login(_request: Request, _error: Exception) -> Response:
        return RedirectResponse("/login", status_code=303)

    @app.exception_handler(TokenyardError)
    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, TokenyardError)
        return templates.TemplateResponse(request, "error.html", {"message": error.message}, status_code=error.status)

    @app.middleware("http")
    async def headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["content-security-policy"] = POLICY
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "no-referrer"
        return response

    app.add_middleware(RequestGuard)
    return app


def _templates() -> Jinja2Templates:
    templates = Jinja2Templates(_HERE / "templates")
    templates.env.filters["dollars"] = lambda nano: f"${to_dollars(nano)}"
    templates.env.filters["count"] = lambda number: f"{number:,}"
    templates.env.filters["moment"] = lambda seconds: f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    return templates
