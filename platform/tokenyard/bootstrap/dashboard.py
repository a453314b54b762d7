"""`python -m tokenyard.bootstrap.dashboard`: the operator's pages, which need nothing but the API's address."""

import uvicorn
import uvloop

from tokenyard.bootstrap.logs import log_to_stderr
from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.settings import Settings
from tokenyard_dashboard.app import create_app
from tokenyard_dashboard.session import SessionCookie

API_TIMEOUT_S = 20.0
SHUTDOWN_LIMIT_S = 5


async def serve(settings: Settings) -> None:
    cookie = SessionCookie(settings.derived_secret("dashboard-session"), secure=settings.dashboard_over_https)
    async with ApiConnection(settings.effective_api_url, timeout_s=API_TIMEOUT_S) as connection:
        config = uvicorn.Config(
            create_app(connection, cookie),
            host=settings.host,
            port=settings.dashboard_port,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
        )
        await uvicorn.Server(config).serve()


def main() -> None:
    log_to_stderr()
    uvloop.run(serve(Settings()))


if __name__ == "__main__":
    main()
