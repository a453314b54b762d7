"""Models that answer what a test says, under idempotency keys as the gateway keeps them."""

from collections import Counter
from collections.abc import Callable

from tokenyard.core.evaluation.questions import Answered, NotAnswered, Question
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.usage import TokenUsage


class ScriptedAnswers:
    """`says` is what a model answers, `fails` what it does instead; `held` lets none answer."""

    tokens = TokenUsage(5, 2)
    """Of each answer, with its question."""

    def __init__(self) -> None:
        self.says: Callable[[str, Question], str] = lambda _model, question: question.expected
        self.fails: list[NotAnswered] = []
        self.before: Callable[[], object] = lambda: None
        self.asked: list[tuple[str, Question, ApiKeyId]] = []
        self.charged: Counter[str] = Counter()
        self._kept: dict[str, Answered] = {}

    async def ask(
        self, question: Question, *, model: str, key: ApiKeyId, idempotency_key: str, max_tokens: int
    ) -> Answered:
        self.before()
        if self.fails:
            raise self.fails.pop()
        self.asked.append((model, question, key))
        if idempotency_key not in self._kept:
            self.charged[idempotency_key] += 1
            said = self.says(model, question)
            self._kept[idempotency_key] = Answered(
                said[:max_tokens], "length" if len(said) > max_tokens else "stop", self.tokens
            )
        return self._kept[idempotency_key]
