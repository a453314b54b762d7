"""What a check notes of each row, within bounded memory, and what it finds in the end."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import msgspec

from tokenyard.core.chat_rows import ChatRow, RowMessage
from tokenyard.core.datasets.checking import MAX_LINES_NAMED, DataFinding, FileReport, TokenLengths
from tokenyard_deployments.training.data.personal_data import kinds_in
from tokenyard_deployments.training.examples import IGNORED, Example

CLASS_CHARACTERS = 64  # a longer answer is no name of a class
MAX_CLASSES = 50
MIN_ROWS_OF_CLASSES = 20
DOMINANT_SHARE = 0.8
_KEY_BYTES = 8


class LinesFound:
    """So many lines, of which the first are named."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[int] = []
        self._last = 0

    def add(self, line: int) -> None:
        if line == self._last:
            return
        self._last = line
        self.count += 1
        if len(self.first) < MAX_LINES_NAMED:
            self.first.append(line)


class FileNotes:
    """Of one file. About a hundred bytes a row are kept, whatever stands in it."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.rows: set[bytes] = set()
        self.questions: set[bytes] = set()
        self._found: dict[str, LinesFound] = defaultdict(LinesFound)
        self._personal: dict[str, LinesFound] = defaultdict(LinesFound)
        self._lengths: Counter[int] = Counter()
        self._classes: Counter[bytes] = Counter()
        self._class_lines: dict[bytes, int] = {}
        self.count = 0
        self.tokens = 0
        self.learnt = 0

    def add(
        self,
        line: int,
        chats: Sequence[ChatRow],
        examples: Sequence[Example],
        *,
        learns: bool,
        trained: "FileNotes | None",
    ) -> None:
        """Take one row in, which is `chats` to a reader and `examples` to the model.

        `learns` says whether there is something to learn; `trained` is the training file's, where this one is for
        validation.
        """
        self.count += 1
        self._measure(line, examples, learns)
        for chat in chats:
            self._note(line, chat, trained)

    def _note(self, line: int, row: ChatRow, trained: "FileNotes | None") -> None:
        key, question = row_key(row.messages), row_key(row.messages[:-1])
        if key in self.rows:
            self._found["duplicate"].add(line)
        if trained is not None and key in trained.rows:
            self._found["leaked"].add(line)
        elif trained is not None and len(row.messages) > 1 and question in trained.questions:
            self._found["leaked_question"].add(line)
        self.rows.add(key)
        self.questions.add(question)
        if any(_is_empty(message) for message in row.messages if _is_learnt(message)):
            self._found["empty_answer"].add(line)
        for kind in dict.fromkeys(kind for text in _texts(row) for kind in kinds_in(text)):
            self._personal[kind].add(line)
        self._classify(line, row.messages[-1])

    def _measure(self, line: int, examples: Sequence[Example], learns: bool) -> None:
        tokens = sum(len(example.input_ids) for example in examples)
        cut = sum(example.cut for example in examples)
        self._lengths[tokens + cut] += 1
        self.tokens += tokens
        self.learnt += sum(label != IGNORED for example in examples for label in example.labels)
        if not learns:
            self._found["nothing_learnt"].add(line)
        elif cut:
            self._found["cut"].add(line)

    def _classify(self, line: int, answer: RowMessage) -> None:
        text = (answer.content or "").strip().casefold()
        if answer.tool_calls or not 0 < len(text) <= CLASS_CHARACTERS or len(self._classes) > MAX_CLASSES:
            return
        key = _hashed(text.encode())
        self._classes[key] += 1
        self._class_lines.setdefault(key, line)

    @property
    def has_lesson(self) -> bool:
        return self.count > self._found["nothing_learnt"].count

    def report(self) -> FileReport:
        return FileReport(rows=self.count, tokens=self.tokens, learnt=self.learnt, lengths=_lengths(self._lengths))

    def findings(self, max_seq_length: int) -> Iterator[DataFinding]:
        """Yield what was found, gravest first."""
        for code, said in _SAID.items():
            lines = self._found[code]
            if lines.count:
                verbs = {many: one if lines.count == 1 else many for many, one in _VERBS.items()}
                message = said.format(rows=_rows(lines.count), tokens=max_seq_length, **verbs)
                yield self._finding(code, lines, message)
        for kind, lines in sorted(self._personal.items()):
            what = f"Suspected personal data or secrets in {_rows(lines.count)}: {kind}"
            yield self._finding("personal_data", lines, what)
        yield from self._imbalance()

    def _finding(self, code: str, lines: LinesFound, message: str) -> DataFinding:
        return DataFinding(code=code, file=self._file, count=lines.count, message=message, lines=tuple(lines.first))

    def _imbalance(self) -> Iterator[DataFinding]:
        classes = self._classes.most_common()
        of_classes = sum(count for _, count in classes)
        if len(classes) > MAX_CLASSES or self.count < MIN_ROWS_OF_CLASSES or of_classes < DOMINANT_SHARE * self.count:
            return
        (most, count), (least, fewest) = classes[0], classes[-1]
        if count < DOMINANT_SHARE * self.count or 2 * len(classes) > self.count:
            return
        said = f"Unbalanced answers: one stands in {count} of {self.count} rows"
        if len(classes) > 1:
            said += f", the rarest of {len(classes)} in {fewest}"
        lines = tuple(dict.fromkeys((self._class_lines[most], self._class_lines[least])))
        yield DataFinding(
            code="class_imbalance",
            file=self._file,
            count=len(lines),
            message=said,
            lines=lines,
        )


_SAID = {
    "nothing_learnt": "In {rows} nothing is left to learn within {tokens} tokens: the answer begins later",
    "cut": "{rows} {are} longer than {tokens} tokens and {are} cut",
    "leaked": "{rows} {are} in the training file, too, and {measure} memory",
    "leaked_question": "{rows} {ask} what the training file asks",
    "duplicate": "{rows} {repeat} an earlier one",
    "empty_answer": "In {rows} an answer shows nothing",
}
_VERBS = {"are": "is", "measure": "measures", "ask": "asks", "repeat": "repeats"}


def row_key(messages: Sequence[RowMessage]) -> bytes:
    """Return a short hash of a chat, in which case and white space make no difference."""
    said = [
        (message.role, " ".join((message.content or "").casefold().split()), message.tool_calls) for message in messages
    ]
    return _hashed(msgspec.json.encode(said))


def _hashed(data: bytes) -> bytes:
    return blake2b(data, digest_size=_KEY_BYTES).digest()


def _is_learnt(message: RowMessage) -> bool:
    return message.role == "assistant" and message.weight != 0


def _is_empty(message: RowMessage) -> bool:
    """Tell whether nothing of an answer can be seen: spaces and control characters only."""
    return not message.tool_calls and all(unicodedata.category(one)[0] in "CZ" for one in message.content or "")


def _texts(row: ChatRow) -> Iterator[str]:
    for message in row.messages:
        if message.content:
            yield message.content
        for call in message.tool_calls or ():
            yield call.function.arguments


def _lengths(counted: Counter[int]) -> TokenLengths:
    ordered = sorted(counted.items())
    buckets: Counter[int] = Counter()
    for length, rows in ordered:
        buckets[1 << max(0, length - 1).bit_length()] += rows
    return TokenLengths(
        shortest=ordered[0][0],
        median=_quantile(ordered, 0.5),
        p90=_quantile(ordered, 0.9),
        p99=_quantile(ordered, 0.99),
        longest=ordered[-1][0],
        rows_up_to={str(bound): rows for bound, rows in sorted(buckets.items())},
    )


def _quantile(ordered: Sequence[tuple[int, int]], part: float) -> int:
    wanted, seen = part * sum(rows for _, rows in ordered), 0
    for length, rows in ordered:
        seen += rows
        if seen >= wanted:
            return length
    return ordered[-1][0]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
