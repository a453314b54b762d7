"""`tokenyard secrets`: the lines of the Secret that a cluster installation needs."""

import secrets

import typer
from pydantic import SecretStr

from tokenyard.cli.command import JsonOption
from tokenyard.cli.output import as_json, write
from tokenyard.settings import Settings


def secret_values(settings: Settings) -> dict[str, str]:
    """Return the Secret's keys and values, apart from the URLs of database and Redis, which only the operator knows.

    A new installation secret is made where none is set. Replicas and dashboard get secrets derived from it, never
    itself.
    """
    if not settings.secret.get_secret_value():
        settings = settings.model_copy(update={"secret": SecretStr(secrets.token_urlsafe(48))})
    return {
        "secret": settings.secret.get_secret_value(),
        "meter-secret": settings.derived_secret("meter").hex(),
        "replica-bearer": settings.derived_secret("replica-bearer").hex(),
        "dashboard-secret": settings.derived_secret("dashboard-session").hex(),
        "auth_token": secrets.token_hex(32),
    }


def secrets_command(app: typer.Typer) -> None:
    @app.command("secrets")
    def show(json: JsonOption = False) -> None:
        """Make the secrets of a cluster installation; prints lines for `kubectl create secret --from-env-file`.

        With TOKENYARD_SECRET set, the same installation's secrets are derived again.
        """
        values = secret_values(Settings())
        write(as_json(values) if json else "\n".join(f"{name}={value}" for name, value in values.items()))
