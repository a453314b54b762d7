"""The calls that a newcomer is shown go to a model that chats."""

from tokenyard.settings import Settings
from tokenyard.stack.snippets import welcome


def test_the_calls_to_paste_are_of_the_first_model_that_chats() -> None:
    settings = Settings(models=("all-minilm-l6-v2", "smollm2-135m-instruct"))
    assert '"model": "smollm2-135m-instruct"' in welcome(settings, None, "ty-key")
