"""Images in a chat: whether the model takes them, and whether each is one that its engine can be given."""

import binascii
import re
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import BaseModel
from tokenyard.gateway.endpoints.chat_messages import ChatMessage, ImagePart, images
from tokenyard.gateway.endpoints.invalid_body import invalid, unsupported

MAX_PIXELS = 16_000_000
"""An engine holds at least three bytes of each, however small the file is, which is bounded as the body is."""
_DATA = re.compile(r"data:image/(png|jpeg|webp|gif);base64,")
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


def check_images(messages: Sequence[ChatMessage], model: BaseModel) -> None:
    """Raise `InvalidRequest` for images that `model` does not take, for too many of them, and for what is none."""
    found = [(place, image) for place, message in enumerate(messages) for image in images(message)]
    if not found:
        return
    if model.images is None:
        name = f"messages[{found[0][0]}].content"
        raise InvalidRequest("This model does not take images.", param=name, code="unsupported_parameter")
    if len(found) > model.images.max_in_request:
        raise invalid("messages", f"at most {model.images.max_in_request} images in one request.")
    for place, image in found:
        _check(image, f"messages[{place}].content")


def _check(image: ImagePart, name: str) -> None:
    url = image.image_url.url
    head = _DATA.match(url)
    if head is None:
        why = "an image is taken as `data:image/png;base64,` (or jpeg, webp, gif) alone; no address is fetched."
        raise unsupported(name, why)
    too_large = invalid(name, f"an image has more than {MAX_PIXELS} pixels.", "image_too_large")
    try:
        data = binascii.a2b_base64(url[head.end() :], strict_mode=True)
        with Image.open(BytesIO(data), formats=_FORMATS) as opened:  # reads the head alone
            width, height = opened.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large from None
    except (OSError, ValueError, SyntaxError) as error:
        raise invalid(name, "an image cannot be read.", "invalid_image") from error
    if width * height > MAX_PIXELS:
        raise too_large
