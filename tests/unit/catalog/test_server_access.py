"""The keys of servers elsewhere come from settings, and without TLS only those are spoken to that are named."""

import msgspec
import pytest
from pydantic import SecretStr

from support.fakes.gateway_ports import BASE
from tokenyard.catalog.base_models.server_access import server_keys
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.core.models import BaseModel, InvalidModelSpec

KEYS = {"theirs": SecretStr("sk-1"), "empty": SecretStr(""), "broken": SecretStr("a\r\nb: c")}


def _model(url: str = "https://models.example/v1", key: str | None = "theirs") -> BaseModel:
    return msgspec.structs.replace(BASE, server=ServerSource(url, "their-model", api_key_setting=key))


def test_keys_by_model() -> None:
    assert server_keys([_model(), msgspec.structs.replace(BASE, id="own")], KEYS, ()) == {BASE.id: "sk-1"}
    assert server_keys([_model(key=None)], {}, ()) == {BASE.id: ""}


@pytest.mark.parametrize("key", ["absent", "empty", "broken"])
def test_a_key_that_cannot_be_used_is_named_and_not_shown(key: str) -> None:
    with pytest.raises(InvalidModelSpec, match=key) as error:
        server_keys([_model(key=key)], KEYS, ())
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize("named", [("10.0.0.5",), ("10.0.0.5:9000",), ("other", "10.0.0.5")])
def test_plain_http_goes_to_named_hosts_alone(named: tuple[str, ...]) -> None:
    plain = _model("http://10.0.0.5:9000/v1")
    assert server_keys([plain], KEYS, named)
    for others in ((), ("10.0.0.50",), ("10.0.0.5:80",)):
        with pytest.raises(InvalidModelSpec, match="TLS"):
            server_keys([plain], KEYS, others)
