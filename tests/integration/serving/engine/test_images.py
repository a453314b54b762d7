"""Images in a chat: as `data:` alone, within bounds, and for models that take them; what is sent vLLM takes."""

import base64
import json
from typing import Any

import msgspec
import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

from support.fakes.gateway_ports import BASE
from support.request_bodies import image
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import ImagesSpec
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.chat_contents.images import MAX_PIXELS
from tokenyard.gateway.endpoints.table import CHAT

SEEING = msgspec.structs.replace(BASE, images=ImagesSpec(tokens=100, max_in_request=2))
TEXT = {"type": "text", "text": "What is this?"}


def part(url: str, **more: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def chat(*parts: object, role: str = "user") -> PaidBody:
    message = {"role": role, "content": [TEXT, *parts]}
    return CHAT.parse(json.dumps({"model": BASE.id, "messages": [message]}).encode())


def refusal(*parts: object, role: str = "user") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        chat(*parts, role=role).check_model(SEEING)
    return refused.value


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_an_image_gets_through_as_it_is(kind: str) -> None:
    body = chat(part(image(kind), detail="auto"))
    body.check_model(SEEING)
    sent = body.sent(SEEING, 16)
    assert sent["messages"][0]["content"] == [TEXT, part(image(kind))]
    ChatCompletionRequest.model_validate({**sent, "model": BASE.id})


def test_an_image_counts_as_many_tokens_as_the_model_makes_of_it() -> None:
    bounds = [chat(*[part(image())] * number).prompts(SEEING)[0].bound for number in (0, 1, 2)]
    assert [bound - bounds[0] for bound in bounds] == [0, 100, 200]


def test_a_model_that_takes_text_refuses_images_by_name() -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(part(image())).check_model(BASE)
    assert (refused.value.param, refused.value.code) == ("messages[0].content", "unsupported_parameter")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://127.0.0.1/a.png",
        "file:///etc/passwd",
        "data:text/html;base64,AAAA",
        "",
        "x",
    ],
)
def test_no_address_is_taken_let_alone_fetched(url: str) -> None:
    refused = refusal(part(url))
    assert (refused.param, refused.code) == ("messages[0].content", "unsupported_parameter")
    assert "no address is fetched" in refused.message


@pytest.mark.parametrize("detail", ["low", "high"])
def test_what_the_engine_does_not_choose_is_refused_by_name(detail: str) -> None:
    assert (refusal(part(image(), detail=detail)).param or "").endswith("detail")


@pytest.mark.parametrize(
    "data",
    ["", "====", "AAAA", "x y", base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(), base64.b64encode(b"<svg/>").decode()],
)
def test_what_is_no_image_is_refused(data: str) -> None:
    assert refusal(part(f"data:image/png;base64,{data}")).code == "invalid_image"


@pytest.mark.parametrize("side", [4_001, 10_000, 20_000], ids=["over", "far over", "a bomb"])
def test_a_small_file_of_many_pixels_is_refused(side: int) -> None:
    assert side * side > MAX_PIXELS
    assert refusal(part(image(size=(side, side)))).code == "image_too_large"


def test_more_images_than_the_model_takes_are_refused() -> None:
    assert refusal(*[part(image())] * 3).param == "messages"


@pytest.mark.parametrize("role", ["system", "assistant", "developer"])
def test_only_a_user_shows_images(role: str) -> None:
    assert refusal(part(image()), role=role).param == "messages[0].content"
