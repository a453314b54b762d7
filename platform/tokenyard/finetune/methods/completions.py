"""Supervised fine-tuning without a chat template: on OpenAI's older prompts with completions, and on plain text."""

from tokenyard.core.datasets.text_rows import check_completion_row, check_text_row
from tokenyard.finetune.methods.method import Json, RowSize

_SPECIAL_TOKENS = 2  # a mark of the beginning and one of the end


class Completions:
    """Learns how prompts go on, as `/v1/completions` is asked: without a chat template."""

    name = "supervised"
    conversations = 1

    def takes(self, row: Json) -> bool:
        return "prompt" in row

    def check_row(self, row: object) -> RowSize:
        typed = check_completion_row(row)
        return RowSize(1, len(typed.prompt.encode()) + len(typed.completion.encode()) + _SPECIAL_TOKENS)


class PlainText:
    """Goes on with the pre-training: learns every token of `{"text": "..."}`."""

    name = "supervised"
    conversations = 1

    def takes(self, row: Json) -> bool:
        return "text" in row

    def check_row(self, row: object) -> RowSize:
        return RowSize(1, len(check_text_row(row).text.encode()) + _SPECIAL_TOKENS)
