"""How the servers elsewhere are got at: the keys of the models that they answer for, and which may go without TLS."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from pydantic import SecretStr

from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.core.models import BaseModel, InvalidModelSpec


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


class ServerKeys(Mapping[str, str]):
    """The same for the models that are served now, whatever was published meanwhile. Raises as `server_keys` does."""

    def __init__(self, bases: BaseModels, keys: Mapping[str, SecretStr], plain_http: Collection[str]) -> None:
        server_keys(bases.all(), keys, plain_http)
        self._bases = bases
        self._keys = keys
        self._plain_http = plain_http

    def __getitem__(self, model: str) -> str:
        found = self._bases.get(model)
        if found is None or found.server is None:
            raise KeyError(model)
        return _key(model, found.server, self._keys, self._plain_http)

    def __iter__(self) -> Iterator[str]:
        return (model.id for model in self._bases.all() if model.server is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


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
