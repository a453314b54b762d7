"""What a model is asked for a row, and its answer as a sample."""

from collections.abc import Iterator

from tokenyard.core.evaluation.questions import CHAT, Answered, NotAnswered, Question
from tokenyard.core.graders.templates import MAX_TEXT, GradedAnswer, Template, UnknownReference, value_at
from tokenyard.evals.ports import Json
from tokenyard.evals.runs.data_source import CompletionsSource, MessagesOfItem
from tokenyard.evals.runs.run import EvalSample, RunError


class UnaskableRow(Exception):
    """The row has not what its question is made of; the message says what."""


def question_for(source: CompletionsSource, item: Json) -> Question:
    """Return what the model of a run is asked for a row, or raise `UnaskableRow`."""
    sampling = source.sampling_params
    asked: Json = {
        "messages": list(_messages(source, item)),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if sampling.response_format is not None:
        asked["response_format"] = sampling.response_format
    return Question(CHAT, asked, "")


def sample_of(source: CompletionsSource, question: Question, said: Answered | NotAnswered) -> EvalSample:
    """Return a model's answer, or why there is none, as what is graded and shown."""
    messages = question.asked["messages"]
    assert isinstance(messages, list)
    if isinstance(said, NotAnswered):
        return EvalSample(text="", input=messages, model=source.model, error=RunError("not_answered", str(said)))
    return EvalSample(
        text=said.text, input=messages, model=source.model, finish_reason=said.finish_reason, tokens=said.tokens
    )


def unasked(source: CompletionsSource, why: UnaskableRow) -> EvalSample:
    """Return the sample of a row for which nothing can be asked."""
    return EvalSample(text="", model=source.model, error=RunError("invalid_row", str(why)))


def _messages(source: CompletionsSource, item: Json) -> Iterator[Json]:
    wanted = source.input_messages
    if isinstance(wanted, MessagesOfItem):
        yield from _of_item(wanted, item)
        return
    row, left = GradedAnswer(item, ""), MAX_TEXT
    for message in wanted.template:
        texts = list[str]()
        for text in message.texts:
            texts.append(_filled(text, row, left))
            left -= len(texts[-1])
        yield {"role": message.role, "content": "\n".join(texts)}


def _filled(text: str, row: GradedAnswer, most: int) -> str:
    try:
        filled = Template(text).filled(row, most)
    except UnknownReference as missing:
        raise UnaskableRow(f"{missing}") from None
    if filled.cut:
        raise UnaskableRow(f"the messages have more than {MAX_TEXT} characters once they are filled in")
    return filled.text


def _of_item(wanted: MessagesOfItem, item: Json) -> Iterator[Json]:
    try:
        found = value_at(item, wanted.path)
    except UnknownReference as missing:
        raise UnaskableRow(f"{missing}") from None
    if not isinstance(found, list) or not found:
        raise UnaskableRow(f"{wanted.item_reference} is not a list of messages")
    for message in found:
        match message:
            case {"role": str(role), "content": str(content)}:
                yield {"role": role, "content": content}
            case _:
                raise UnaskableRow(f"{wanted.item_reference} is not a list of messages with role and content as texts")
