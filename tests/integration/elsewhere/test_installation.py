"""A real gateway process whose settings name a model elsewhere: listed, ready, counted, sold; not to be fine-tuned."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.elsewhere_stack import SOLD
from support.fakes.server_elsewhere import KEY_THERE, THERE, ServerElsewhereFake, running_elsewhere
from support.gateway_stack import HELLO, until
from support.servers.gateways import MODEL, GatewayFleet, running_gateways
from tokenyard.settings import Settings

HIDDEN = "stand-in"
"""Without a price it is a fallback alone."""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    async with running_elsewhere(ServerElsewhereFake()) as url:
        _write_files(tmp_path, url)
        async with running_gateways(
            tmp_path,
            1,
            models=(MODEL, SOLD, HIDDEN),
            models_dir=tmp_path / "models",
            prices_dir=tmp_path / "prices",
            server_keys={"theirs": KEY_THERE},
            plain_http_servers=("127.0.0.1",),
        ) as running:
            yield running


def _write_files(folder: Path, url: str) -> None:
    shipped = Settings()
    own: dict[str, Any] = yaml.safe_load((shipped.models_dir / f"{MODEL}.yaml").read_text())
    bounds = ("context_length", "default_max_tokens", "template_tokens", "template_tokens_per_message")
    source = {"kind": "server", "url": url, "model": THERE, "api_key_setting": "theirs"}
    sold = {**{name: own[name] for name in ("version", "created", *bounds)}, "source": source}
    models = {MODEL: {**own, "fallback": HIDDEN}, SOLD: {**sold, "id": SOLD}, HIDDEN: {**sold, "id": HIDDEN}}
    (folder / "models").mkdir()
    for name, model in models.items():
        (folder / "models" / f"{name}.yaml").write_text(yaml.safe_dump(model))
    (card,) = shipped.prices_dir.glob("*.yaml")
    prices = yaml.safe_load(card.read_text())
    prices["models"][SOLD] = prices["models"][MODEL]
    (folder / "prices").mkdir()
    (folder / "prices" / card.name).write_text(yaml.safe_dump(prices))


def _logs(folder: Path) -> str:
    return "".join(file.read_text(errors="replace") for file in folder.glob("gateway-*.log"))


async def test_it_is_sold_like_any_model(fleet: GatewayFleet, tmp_path: Path) -> None:
    key = await fleet.new_tenant("acme")
    ready = await (await fleet.call(0, "GET", "/ready", "")).json()
    assert (ready["checks"]["servers"], ready["checks"]["replicas"]) == ("ok", "ok")
    listed = await (await fleet.call(0, "GET", "/v1/models", key)).json()
    assert {model["id"] for model in listed["data"]} == {MODEL, SOLD}

    answer = await fleet.call(0, "POST", "/v1/chat/completions", key, {"model": SOLD, "messages": HELLO})
    reply = await answer.json()
    assert (answer.status, reply["model"], reply["usage"]["total_tokens"]) == (200, SOLD, 15)
    hidden = await fleet.call(0, "POST", "/v1/chat/completions", key, {"model": HIDDEN, "messages": HELLO})
    assert (hidden.status, (await hidden.json())["error"]["code"]) == (404, "model_not_found")

    job = {"model": SOLD, "training_file": "file-none"}
    refused = await fleet.call(0, "POST", "/v1/fine_tuning/jobs", key, job)
    assert (refused.status, (await refused.json())["error"]["param"]) == (404, "model")

    metrics = await (await fleet.call(0, "GET", "/metrics", "")).text()
    assert f'model="{SOLD}",' in metrics
    assert KEY_THERE not in _logs(tmp_path) + metrics


async def test_a_fallback_stands_in_until_a_replica_is_there(fleet: GatewayFleet) -> None:
    key = await fleet.new_tenant("acme")

    async def asked() -> dict[str, Any]:
        response = await fleet.call(0, "POST", "/v1/chat/completions", key, {"model": MODEL, "messages": HELLO})
        assert response.status == 200, await response.text()
        reply: dict[str, Any] = await response.json()
        assert reply["model"] == MODEL
        return reply

    fleet.server.behaviour.status = 503
    assert (await asked())["id"] == "gen-17"
    fleet.server.behaviour.status = 200

    async def ours() -> bool:
        return bool((await asked())["id"] != "gen-17")

    await until(ours)
