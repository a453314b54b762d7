"""What belongs to one data folder: its settings with the generated secret, and the environment of its processes."""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from tokenyard.settings import Settings

SECRET_VARIABLE = "TOKENYARD_SECRET"  # noqa: S105 - the name of a variable
SECRET_LENGTH = 32


class StackFailed(Exception):
    """The platform cannot start or go on here; the message says to the operator what is wrong and what to do."""


def load_settings(*, create_secret: bool = False) -> Settings:
    """Read the settings; a secret that the environment does not give comes from the data folder.

    With `create_secret`, one is made and kept there (readable by its owner only) where there is none yet.

    Raises:
        StackFailed: a setting has a value that it cannot have.
    """
    try:
        settings = Settings()
    except (ValidationError, SettingsError) as error:
        raise StackFailed(_what_is_wrong(error)) from error
    given = settings.secret.get_secret_value()
    if given and len(given) < SECRET_LENGTH:
        raise StackFailed(f"{SECRET_VARIABLE} has {len(given)} characters; it needs {SECRET_LENGTH} random ones.")
    if given:
        return settings
    file = settings.data_dir / "secrets.env"
    if create_secret and not file.exists():
        write_private(file, f"{SECRET_VARIABLE}={secrets.token_urlsafe(48)}\n")
    secret = _read_secret(file)
    return settings.model_copy(update={"secret": SecretStr(secret)}) if secret else settings


def _what_is_wrong(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return f"A TOKENYARD_ setting cannot be read: {error}"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "\n".join(f"TOKENYARD_{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in problems)


def _read_secret(file: Path) -> str | None:
    if not file.exists():
        return None
    for line in file.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == SECRET_VARIABLE:
            return value
    return None


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read; it appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    partial.replace(file)


def ensure_ray_token(settings: Settings) -> None:
    """Make Ray's token where there is none, at the place where the `ray` commands of this user look for it."""
    if not settings.ray_token_file.exists():
        write_private(settings.ray_token_file, secrets.token_hex(32))


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables from which a child process reads these same settings, with nothing left to be guessed."""
    values: dict[str, object] = {
        **settings.model_dump(mode="json"),
        "secret": settings.secret.get_secret_value(),
        "models": json.dumps(settings.models),
        "trusted_proxies": json.dumps(settings.trusted_proxies),
        "server_keys": json.dumps({name: key.get_secret_value() for name, key in settings.server_keys.items()}),
        "plain_http_servers": json.dumps(settings.plain_http_servers),
        "webhook_networks": json.dumps(settings.webhook_networks),
        "data_dir": settings.data_dir.absolute(),
        "database_url": settings.effective_database_url,
        "redis_url": settings.effective_redis_url,
        "blob_url": settings.effective_blob_url,
        "models_path": settings.effective_models_path,
        "ray_url": settings.effective_ray_url,
    }
    return {f"TOKENYARD_{name.upper()}": str(value) for name, value in values.items()}


def local_url(settings: Settings, port: int) -> str:
    """Return how this machine reaches one of our own ports."""
    return settings.local_url(port)


def child_environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return a child's whole environment: ours first on PATH, so that Ray's jobs find `tokenyard-train`."""
    ours = str(Path(sys.executable).parent)
    path = inherited.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != ours:
        path = os.pathsep.join((ours, path))
    return {**inherited, **environment_of(settings), "PATH": path, "PYTHONUNBUFFERED": "1"}
