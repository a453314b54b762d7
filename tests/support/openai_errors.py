"""What a refusal of the real `openai` client carries."""

import openai


def error_of(refused: openai.APIError) -> dict[str, object]:
    """Return the `error` object of the reply's body."""
    assert isinstance(refused.body, dict)
    return refused.body


def message_of(refused: openai.APIError) -> str:
    """Return the message as it was sent; `refused.message` puts the status and the whole body around it."""
    message = error_of(refused)["message"]
    assert isinstance(message, str)
    return message
