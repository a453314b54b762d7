"""How the servers elsewhere are got at: the keys of the models that they answer for, and which may go without TLS."""

from collections.abc import Collection, Iterable, Mapping

from pydantic import SecretStr

from tokenyard.core.models import BaseModel, InvalidModelSpec, ServerSource


def server_keys(
    models: Iterable[BaseModel], keys: Mapping[str, SecretStr], plain_http: Collection[str]
) -> dict[str, str]:
    """Return the key of each model that is served elsewhere, by its id; "" for one that needs none.

    `keys` and `plain_http` are the settings `server_keys` and `plain_http_servers`; the latter are hosts, or a host and
    its port.

    Raises:
        InvalidModelSpec: a key is not there, or a server that is not named so would be spoken to without TLS.
    """
    return {model.id: _key(model.id, model.server, keys, plain_http) for model in models if model.server is not None}


def _key(model: str, server: ServerSource, keys: Mapping[str, SecretStr], plain_http: Collection[str]) -> str:
    host = server.address.rpartition(":")[0]
    if server.url.startswith("http://") and not {host, server.address}.intersection(plain_http):
        raise InvalidModelSpec(f"model {model}: {server.url} has no TLS; TOKENYARD_PLAIN_HTTP_SERVERS must name {host}")
    if server.api_key_setting is None:
        return ""
    key = keys.get(server.api_key_setting)
    if key is None or not key.get_secret_value():
        raise InvalidModelSpec(f"model {model}: TOKENYARD_SERVER_KEYS has no key {server.api_key_setting!r}")
    if not key.get_secret_value().isascii() or not key.get_secret_value().isprintable():
        raise InvalidModelSpec(f"model {model}: the key {server.api_key_setting!r} cannot stand in a header")
    return key.get_secret_value()
