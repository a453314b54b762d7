"""Checks a job's files as training will read them: every row by its rules and through the base model's template."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tokenyard.core.chat_rows import ChatRow, RowProblem
from tokenyard.core.datasets.checking import CheckError, CheckSpec, DataReport
from tokenyard.core.datasets.lines import MAX_PROBLEMS, Line, LineProblem
from tokenyard.core.datasets.preference_rows import check_preference_row
from tokenyard.core.datasets.reinforcement_rows import check_reinforcement_row
from tokenyard.core.datasets.text_rows import TrainingRow, check_training_row
from tokenyard_deployments.training.data.findings import FileNotes
from tokenyard_deployments.training.examples import (
    IGNORED,
    Example,
    examples_of,
    nothing_to_learn,
    prompt_tokens,
    read_lines,
)
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.prompts import leaves_room

TRAINING_FILE = "training_file"


class Lesson(NamedTuple):
    """What a row is to a reader, and to the model; `learns` says whether enough of it is left after cutting."""

    chats: Sequence[ChatRow]
    examples: Sequence[Example]
    learns: bool


def _supervised(row: object, spec: CheckSpec, tokenizer: Any) -> Lesson:
    return _from_examples([check_training_row(row)], spec, tokenizer, any)


def _preferences(row: object, spec: CheckSpec, tokenizer: Any) -> Lesson:
    return _from_examples(check_preference_row(row).chats(), spec, tokenizer, all)


def _from_examples(
    rows: Sequence[TrainingRow], spec: CheckSpec, tokenizer: Any, needed: Callable[[Iterable[bool]], bool]
) -> Lesson:
    examples = [one for row in rows for one in examples_of(row, tokenizer, spec.max_seq_length)]
    chats = [row if isinstance(row, ChatRow) else row.as_chat() for row in rows]
    return Lesson(chats, examples, needed(example.has_lesson for example in examples))


def _to_be_answered(row: object, spec: CheckSpec, tokenizer: Any) -> Lesson:
    wanted = spec.hyperparameters
    assert wanted is not None, "whoever writes the spec of a method with a grader gives it"
    checked = check_reinforcement_row(row, wanted.grader)
    ids = prompt_tokens(ChatRow(checked.messages, checked.tools), tokenizer)
    example = Example(ids, [IGNORED] * len(ids))
    return Lesson([checked.as_chat()], [example], leaves_room(len(ids), spec.max_seq_length, wanted))


LESSONS: Mapping[str, Callable[[object, CheckSpec, Any], Lesson]] = {
    "supervised": _supervised,
    "dpo": _preferences,
    "reinforcement": _to_be_answered,
}
"""By method: checks one decoded row by its rules and returns what is learnt from it; raises `RowProblem`."""


class FileRefused(Exception):
    """A file cannot be used, for a reason that can be told."""

    def __init__(self, error: CheckError) -> None:
        super().__init__(error.message)
        self.error = error


def check_files(spec: CheckSpec, tokenizer: Any) -> DataReport:
    """Return what is in the files; the first that cannot be used raises `FileRefused`, which names its wrong lines."""
    notes: dict[str, FileNotes] = {}
    for file in sorted(spec.files, key=lambda name: name != TRAINING_FILE):
        notes[file] = _FileCheck(spec, file, tokenizer).notes(notes.get(TRAINING_FILE))
    return DataReport(
        job=spec.job,
        checked_at=int(time.time()),
        max_seq_length=spec.max_seq_length,
        files={file: found.report() for file, found in notes.items()},
        findings=tuple(one for found in notes.values() for one in found.findings(spec.max_seq_length)),
    )


class _FileCheck:
    """Reads one file."""

    def __init__(self, spec: CheckSpec, file: str, tokenizer: Any) -> None:
        self._spec = spec
        self._file = file
        self._tokenizer = tokenizer
        self._lesson = LESSONS[spec.method]
        self._notes = FileNotes(file)

    def notes(self, trained: FileNotes | None) -> FileNotes:
        """Read it whole; `trained` is what was found in the training file, where this is another."""
        problems = []
        try:
            for line in read_lines(self._spec.files[self._file]):
                problem = line if isinstance(line, LineProblem) else self._take(line, trained)
                if problem is not None:
                    problems.append(problem)
                if len(problems) == MAX_PROBLEMS:
                    break
        except TrainingFailed as gone:
            raise self._refused(gone.error.message) from gone
        if problems:
            raise self._refused("; ".join(map(str, problems)))
        if not self._notes.has_lesson:
            raise self._refused(nothing_to_learn(self._spec.max_seq_length))
        return self._notes

    def _take(self, line: Line, trained: FileNotes | None) -> LineProblem | None:
        try:
            chats, examples, learns = self._lesson(line.row, self._spec, self._tokenizer)
        except RowProblem as problem:
            return LineProblem(line.number, str(problem))
        self._notes.add(line.number, chats, examples, learns=learns, trained=trained)
        return None

    def _refused(self, why: str) -> FileRefused:
        message = f"The {self._file.replace('_', ' ')} cannot be used: {why}"
        return FileRefused(CheckError(f"invalid_{self._file}", message, self._file))
