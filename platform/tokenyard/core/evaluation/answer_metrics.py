"""How near answers come to the ones that were expected. Every figure is from 0 to 1."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from rapidfuzz.distance import Indel
from sacrebleu.metrics.bleu import BLEU

# Chinese and Japanese are written without spaces: there, each character counts as a word.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


class AnswerMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over `rows` answers.

    `exact_match` is the part that equals the expected answer, but for spaces around it. `f1` is the mean over rows of
    how many words they share (SQuAD's, with every word), `rouge_l` likewise of the longest common subsequence of words
    (ROUGE-L's F-measure). `bleu` is sacrebleu's BLEU of all answers together; with answers of less than four words, of
    as many words as the longest has. `json_validity` is, among the rows that expect a JSON object or array, the part
    whose answer is JSON; None where no row does.
    """

    rows: int
    exact_match: float
    f1: float
    bleu: float
    rouge_l: float
    json_validity: float | None = None


def answer_metrics(answers: Sequence[str], expected: Sequence[str]) -> AnswerMetrics:
    """Compare each answer with the one expected of its row; no answers, or not as many, raise `ValueError`."""
    pairs = list(zip(answers, expected, strict=True))
    if not pairs:
        raise ValueError("there are no answers to compare")
    of_json = [is_json(answer) for answer, wanted in pairs if wanted.lstrip()[:1] in "{[" and is_json(wanted)]
    return AnswerMetrics(
        rows=len(pairs),
        exact_match=_mean([exact_match(*pair) for pair in pairs]),
        f1=_mean([word_f1(*pair) for pair in pairs]),
        bleu=bleu(answers, expected),
        rouge_l=_mean([rouge_l(*pair) for pair in pairs]),
        json_validity=_mean(of_json) if of_json else None,
    )


def exact_match(answer: str, expected: str) -> bool:
    """Tell whether both are the same but for spaces around them."""
    return answer.strip() == expected.strip()


def word_f1(answer: str, expected: str) -> float:
    """Return the harmonic mean of which part of the answer's words is expected, and which of the expected is there."""
    return rouge_n(answer, expected, 1)


def rouge_n(answer: str, expected: str, size: int) -> float:
    """Return ROUGE-N's F-measure: `word_f1` of every `size` words in a row."""
    ours, theirs = (list(_in_a_row(_words(text), size)) for text in (answer, expected))
    if not ours or not theirs:
        return float(exact_match(answer, expected))
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))


def rouge_l(answer: str, expected: str) -> float:
    """Return ROUGE-L's F-measure: what the insert-and-delete distance of words is, normalized."""
    ours, theirs = _words(answer), _words(expected)
    if not ours or not theirs:
        return float(exact_match(answer, expected))
    return float(Indel.normalized_similarity(ours, theirs))


def bleu(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Return the corpus's BLEU with sacrebleu's own tokens."""
    score: float = BLEU(effective_order=True).corpus_score(list(answers), [list(expected)]).score
    return min(1.0, score / 100)  # rounding may end a hair above


def is_json(text: str) -> bool:
    """Tell whether the text is one JSON value and nothing else."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _in_a_row(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
