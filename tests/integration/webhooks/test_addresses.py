"""Nothing of the operator's own networks can be called, however its address is written or come by."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from support.servers.asgi import running
from support.servers.certificates import ServerCertificate, make_certificate
from support.webhooks.receiver import WebhookReceiver, answers, receiving
from tokenyard.webhooks.delivery.sending import EndpointAnswer, WebhookSender
from tokenyard.webhooks.targets import WebhookTargets

NOT_ALLOWED = "Webhooks are not sent to the address of this host."


@pytest.fixture
async def inside() -> AsyncIterator[WebhookReceiver]:
    """A server of the operator's own, which nobody may reach by a webhook."""
    async with receiving() as made:
        yield made


async def send(url: str, *networks: str, tls: ssl.SSLContext | None = None) -> EndpointAnswer:
    targets = WebhookTargets(networks, plain_http=True)
    async with WebhookSender(targets, tls=tls, limit_s=5) as sender:
        return await sender.send(url, {"webhook-id": "evt_1"}, b"{}")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "LOCALHOST.", "2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "127。0。0。1", "①②⑦.⓪.⓪.①"),
    ],
)
async def test_however_it_is_written_it_is_not_called(inside: WebhookReceiver, host: str) -> None:
    answer = await send(f"http://{host}:{inside.url.rpartition(':')[2]}/")
    assert answer.status is None
    assert answer.error
    assert inside.connections == 0


async def test_a_name_is_judged_by_the_address_that_is_connected_to(inside: WebhookReceiver) -> None:
    """There is no second look at a name that could lead elsewhere: the judged address is that of the very socket."""
    port = inside.url.rpartition(":")[2]
    assert (await send(f"http://localhost:{port}/")).error == NOT_ALLOWED
    assert (await send(f"http://localhost:{port}/", "127.0.0.0/8")).status == 204
    [received] = inside.received
    assert received.headers["host"] == f"localhost:{port}"


async def test_a_redirect_leads_nowhere(inside: WebhookReceiver) -> None:
    async with receiving() as outside:
        outside.behaviours["/"] = answers(307, location=f"{inside.url}/secret")
        answer = await send(f"{outside.url}/", "127.0.0.0/8")
    assert answer.status == 307
    assert inside.connections == 0


async def test_what_is_allowed_no_more_is_not_called(inside: WebhookReceiver) -> None:
    async with WebhookSender(WebhookTargets(["127.0.0.0/8"])) as sender:
        answer = await sender.send(inside.url, {}, b"{}")
    assert (answer.status, answer.error) == (None, "A webhook's URL begins with https://.")
    assert inside.connections == 0


async def test_proxies_of_the_environment_are_not_asked(
    inside: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, inside.url)
    assert (await send("http://a.invalid/", "127.0.0.0/8")).error == "The host was not found."
    assert inside.connections == 0


async def test_tls_is_checked(tmp_path: Path) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"over TLS"})

    certificate = make_certificate(tmp_path)
    async with running(app, config=_over_tls(app, certificate)) as url:
        secure = url.replace("http://", "https://")
        trusted = await send(secure, "127.0.0.0/8", tls=certificate.trusted())
        assert (trusted.status, trusted.text) == (200, "over TLS")
        untrusted = await send(secure, "127.0.0.0/8")
        assert (untrusted.status, untrusted.error) == (None, "There is no trusted TLS connection with the host.")
        other_name = await send(secure.replace("127.0.0.1", "localhost"), "127.0.0.0/8", tls=certificate.trusted())
        assert (other_name.status, other_name.error) == (None, "There is no trusted TLS connection with the host.")


def _over_tls(app: object, certificate: ServerCertificate) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        log_level="critical",
        ssl_certfile=str(certificate.certificate),
        ssl_keyfile=str(certificate.key),
        timeout_graceful_shutdown=2,
    )
