"""`POST /v1/score` and `POST /v1/rerank`: how near texts are to each other, by the cosine of their vectors."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenyard.core.models import BaseModel
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.body import AnswerHead, Prompt
from tokenyard.gateway.endpoints.embeddings import MAX_INPUTS, PooledBody, PromptUsage
from tokenyard.gateway.endpoints.invalid_body import Json, invalid

_Text = Annotated[str, Meta(min_length=1)]
_Texts = Annotated[list[_Text], Meta(min_length=1, max_length=MAX_INPUTS)]


class ScoreBody(PooledBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One query to compare with each document, or as many queries as documents, to compare in pairs."""

    refused: ClassVar[Mapping[str, str]] = {
        **PooledBody.refused,
        "text_1": "use 'queries'.",
        "text_2": "use 'documents'.",
    }

    queries: _Text | _Texts
    documents: _Text | _Texts
    text_1: None = None
    text_2: None = None

    def check(self) -> None:
        queries, documents = len(_listed(self.queries)), len(_listed(self.documents))
        if queries not in (1, documents):
            raise invalid("queries", f"{queries} for {documents} documents: there must be one, or one for each.")

    def prompts(self, model: BaseModel) -> list[Prompt]:
        return [Prompt([text], model.template_tokens) for text in (*_listed(self.queries), *_listed(self.documents))]

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        return {"queries": self.queries, "documents": self.documents}


class Score(msgspec.Struct):
    """How near a query and a document are: 1 is the same, 0 has nothing to do with it."""

    object: Literal["score"]
    index: int
    score: float


class ScoreList(msgspec.Struct):
    """The scores of all documents, in their order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: PromptUsage


class DocumentText(msgspec.Struct, forbid_unknown_fields=True):
    """A document."""

    text: _Text


class RerankBody(PooledBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Documents to put into the order of how near they are to the query; all of them, or the `top_n` nearest."""

    refused: ClassVar[Mapping[str, str]] = {
        **PooledBody.refused,
        "max_tokens_per_doc": "no document is cut.",
    }

    query: _Text
    documents: Annotated[list[_Text | DocumentText], Meta(min_length=1, max_length=MAX_INPUTS)]
    max_tokens_per_doc: None = None
    return_documents: Annotated[bool, Meta(description="Default: true.")] | None = None
    top_n: Annotated[int, Meta(ge=1, le=MAX_INPUTS)] | None = None

    @property
    def texts(self) -> list[str]:
        return [one if isinstance(one, str) else one.text for one in self.documents]

    def prompts(self, model: BaseModel) -> list[Prompt]:
        return [Prompt([text], model.template_tokens) for text in (self.query, *self.texts)]

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        return {"queries": self.query, "documents": self.texts}

    def answer(self, head: AnswerHead) -> Answer:
        return _RerankAnswer(head, () if self.return_documents is False else self.texts, self.top_n)


class RankedDocument(msgspec.Struct):
    """A document: `index` is its place in the request."""

    index: int
    relevance_score: float
    document: DocumentText | UnsetType = UNSET


class Ranking(msgspec.Struct):
    """The documents, the nearest first."""

    id: str
    model: str
    results: list[RankedDocument]
    usage: PromptUsage


_SCORES = msgspec.json.Decoder(ScoreList)


class _RerankAnswer(Answer):
    """Makes a ranking of the scores that the replica answers; `texts` are told with it."""

    translated = True

    def __init__(self, head: AnswerHead, texts: Sequence[str], top_n: int | None) -> None:
        super().__init__(include_usage=False)
        self._head = head
        self._texts = texts
        self._top_n = top_n

    def whole(self, reply: bytes) -> bytes:
        scores = _SCORES.decode(reply)
        self._final = TokenUsage(scores.usage.prompt_tokens, 0)
        nearest = sorted(scores.data, key=lambda one: -one.score)[: self._top_n]
        results = [RankedDocument(one.index, one.score, self._document(one.index)) for one in nearest]
        return msgspec.json.encode(Ranking(self._head.id, self._head.model, results, scores.usage))

    def _document(self, index: int) -> DocumentText | UnsetType:
        return DocumentText(self._texts[index]) if self._texts else UNSET


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts
