"""Supervised fine-tuning on chats: `{"messages": [...], "tools"?: [...], "parallel_tool_calls"?: bool}` a row."""

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticCustomError

from tokenyard.core.chat_rows import check_chat_row
from tokenyard.core.training import Hyperparameters
from tokenyard.finetune.methods.method import Json, RowSize

MAX_EPOCHS = 50
MAX_BATCH_SIZE = 256
MAX_MULTIPLIER = 100


def _count_up_to(highest: int) -> BeforeValidator:
    def check(value: object) -> object:
        if value == "auto":
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= highest:
            return value
        raise PydanticCustomError("auto_or_count", f'must be "auto" or a whole number from 1 to {highest}')

    return BeforeValidator(check)


def _check_multiplier(value: object) -> object:
    if value == "auto":
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_MULTIPLIER:
        return value
    raise PydanticCustomError("auto_or_positive", f'must be "auto" or a number above 0, up to {MAX_MULTIPLIER}')


class RequestedHyperparameters(BaseModel, extra="forbid"):
    """Each is a number or "auto"."""

    n_epochs: Annotated[int | str, _count_up_to(MAX_EPOCHS)] = "auto"
    batch_size: Annotated[int | str, _count_up_to(MAX_BATCH_SIZE)] = "auto"
    learning_rate_multiplier: Annotated[float | str, BeforeValidator(_check_multiplier)] = "auto"


class SupervisedSettings(BaseModel, extra="forbid"):
    """How supervised fine-tuning is set."""

    hyperparameters: RequestedHyperparameters | None = None

    def resolved(self, rows: int) -> Hyperparameters:
        """Return the hyperparameters; "auto" gives small datasets many epochs and large ones few."""
        asked = self.hyperparameters or RequestedHyperparameters()
        epochs, batch, multiplier = asked.n_epochs, asked.batch_size, asked.learning_rate_multiplier
        return Hyperparameters(
            n_epochs=max(1, min(10, round(300 / max(1, rows)))) if epochs == "auto" else int(epochs),
            batch_size=max(1, min(32, rows // 10)) if batch == "auto" else int(batch),
            learning_rate_multiplier=1.0 if multiplier == "auto" else float(multiplier),
        )


class Supervised:
    """Learns the assistant messages of weight 1, which is the default."""

    name = "supervised"
    row_field = "messages"

    def check_row(self, row: object) -> RowSize:
        messages = check_chat_row(row).messages
        assert isinstance(row, dict), "the rules say so"
        return RowSize(len(messages), text_token_bound(row))


def text_token_bound(row: Json) -> int:
    """Bound a row's tokens from above, without the chat template: no tokenizer makes more tokens than UTF-8 bytes.

    Everything but the bare text (tool calls, tools) counts as the JSON it renders to at most.
    """
    messages: Any = row["messages"]
    texts = [
        value if isinstance(value, str) else _as_in_a_template(value)
        for message in messages
        for name, value in message.items()
        if name not in ("role", "weight") and value is not None
    ]
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    # Text here, but an object for the template.
    texts += [_as_in_a_template(msgspec.json.decode(call["function"]["arguments"] or "{}")) for call in calls]
    if row.get("tools"):
        texts.append(_as_in_a_template(row["tools"]))
    return sum(len(text.encode()) for text in texts)


def _as_in_a_template(value: object) -> str:
    """Return JSON at the greatest length at which templates print it, which is with an indent of four."""
    return msgspec.json.format(msgspec.json.encode(value), indent=4).decode().replace("\n", "\n    ")
