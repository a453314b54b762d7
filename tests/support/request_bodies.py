"""What requests are made of: the least body that each paid endpoint takes, without its model, and images."""

import base64
from io import BytesIO
from typing import Any

from PIL import Image

from support.gateway_stack import HELLO
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RERANK, RESPONSES, SCORE

LEAST: dict[str, dict[str, Any]] = {
    CHAT.path: {"messages": HELLO},
    COMPLETIONS.path: {"prompt": "hello"},
    RESPONSES.path: {"input": "hello"},
    MESSAGES.path: {"messages": HELLO, "max_tokens": 1},
    EMBEDDINGS.path: {"input": "hello"},
    SCORE.path: {"queries": "hello", "documents": "hello"},
    RERANK.path: {"query": "hello", "documents": ["hello"]},
}


def image_data(kind: str = "png", size: tuple[int, int] = (2, 3)) -> str:
    """Return an image in base64."""
    file = BytesIO()
    Image.new("1" if kind == "png" else "RGB", size).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def image(kind: str = "png", size: tuple[int, int] = (2, 3)) -> str:
    """Return an image as a `data:` URL."""
    return f"data:image/{kind};base64,{image_data(kind, size)}"
