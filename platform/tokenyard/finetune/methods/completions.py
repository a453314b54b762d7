"""Supervised fine-tuning without a chat template: on OpenAI's older prompts with completions, and on plain text."""

from tokenyard.finetune.methods.method import Json, RowProblem, RowSize

_SPECIAL_TOKENS = 2  # a mark of the beginning and one of the end


class Completions:
    """Learns how prompts go on, as `/v1/completions` is asked: without a chat template."""

    name = "supervised"
    row_field = "prompt"
    conversations = 1

    def check_row(self, row: object) -> RowSize:
        texts = _texts(row, ("prompt", "completion"))
        return RowSize(1, sum(len(text.encode()) for text in texts) + _SPECIAL_TOKENS)


class PlainText:
    """Goes on with the pre-training: learns every token of `{"text": "..."}`."""

    name = "supervised"
    row_field = "text"
    conversations = 1

    def check_row(self, row: object) -> RowSize:
        (text,) = _texts(row, ("text",))
        return RowSize(1, len(text.encode()) + _SPECIAL_TOKENS)


def _texts(row: object, names: tuple[str, ...]) -> list[str]:
    """Return the fields of a row that has these and no others, each a text with something in it."""
    wanted = " and ".join(f'"{name}"' for name in names)
    if not isinstance(row, dict):
        raise RowProblem(f"must be a JSON object with {wanted}")
    unknown = sorted(set(row) - set(names))
    if unknown:
        raise RowProblem(f"the row has the unknown field {unknown[0][:40]!r}")
    return [_text(row, name) for name in names]


def _text(row: Json, name: str) -> str:
    text = row.get(name)
    if not isinstance(text, str):
        raise RowProblem(f'"{name}" must be text')
    if not text.strip():
        raise RowProblem(f'"{name}" is empty')
    return text
