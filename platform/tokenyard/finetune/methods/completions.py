"""Supervised fine-tuning without a chat template: on OpenAI's older prompts with completions, and on plain text."""

from tokenyard.core.datasets.text_rows import check_completion_row, check_text_row
from tokenyard.finetune.methods.method import RowSize

_SPECIAL_TOKENS = 2  # a mark of the beginning and one of the end


class Completions:
    """Learns how prompts go on, as `/v1/completions` is asked: without a chat template."""

    name = "supervised"
    row_field = "prompt"
    conversations = 1

    def check_row(self, row: object) -> RowSize:
        typed = check_completion_row(row)
        return RowSize(1, len(typed.prompt.encode()) + len(typed.completion.encode()) + _SPECIAL_TOKENS)


class PlainText:
    """Goes on with the pre-training: learns every token of `{"text": "..."}`."""

    name = "supervised"
    row_field = "text"
    conversations = 1

    def check_row(self, row: object) -> RowSize:
        return RowSize(1, len(check_text_row(row).text.encode()) + _SPECIAL_TOKENS)
