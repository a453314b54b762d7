"""What is noted of rows, and what is said of it."""

import msgspec
import pytest

from tokenyard.core.chat_rows import ChatRow, check_chat_row
from tokenyard.core.datasets.checking import MAX_LINES_NAMED, DataFinding

pytest.importorskip("transformers")
from tokenyard_deployments.training.data.findings import FileNotes
from tokenyard_deployments.training.examples import IGNORED, Example

LEARNT = Example([1, 2, 3], [IGNORED, IGNORED, 3])


def row(question: str, answer: str) -> ChatRow:
    return check_chat_row(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    )


def notes_of(*rows: ChatRow, file: str = "training_file", trained: FileNotes | None = None) -> FileNotes:
    notes = FileNotes(file)
    for line, one in enumerate(rows, start=1):
        notes.add(line, [one], [LEARNT], learns=True, trained=trained)
    return notes


def said(notes: FileNotes) -> dict[str, str]:
    return {one.code: str(one) for one in notes.findings(100)}


def test_a_good_file_has_figures_and_no_findings() -> None:
    notes = notes_of(*[row(f"question {n}", f"answer {n}") for n in range(30)])
    assert said(notes) == {}
    report = notes.report()
    assert (report.rows, report.tokens, report.learnt) == (30, 90, 30)


def test_repeated_rows_are_found_whatever_their_case_and_spaces() -> None:
    notes = notes_of(row("Hi  there", "A"), row("b", "B"), row("hi there", "a"))
    assert said(notes) == {"duplicate": "1 row repeats an earlier one (line 3)"}


def test_held_out_rows_that_are_trained_on() -> None:
    trained = notes_of(row("a", "A"), row("b", "B"))
    notes = notes_of(row("b", "B"), row("a", "other"), row("c", "C"), file="validation_file", trained=trained)
    found = {one.code: one.lines for one in notes.findings(100)}
    assert found == {"leaked": (1,), "leaked_question": (2,)}


def test_lengths() -> None:
    notes = FileNotes("training_file")
    for line in range(1, 101):
        example = Example([0] * line, [1] * line, cut=900 if line == 100 else 0)
        notes.add(line, [row(str(line), "x")], [example], learns=True, trained=None)
    lengths = notes.report().lengths
    assert (lengths.shortest, lengths.median, lengths.p90, lengths.p99, lengths.longest) == (1, 50, 90, 99, 1000)
    assert lengths.rows_up_to == {"1": 1, "2": 1, "4": 2, "8": 4, "16": 8, "32": 16, "64": 32, "128": 35, "1024": 1}
    assert said(notes)["cut"] == "1 row is longer than 100 tokens and is cut (line 100)"


def test_rows_that_teach_nothing_are_named_up_to_a_bound() -> None:
    notes = FileNotes("training_file")
    for line in range(1, 51):
        example = Example([1, 2], [1, IGNORED], cut=5)
        notes.add(line, [row(str(line), str(line))], [example], learns=False, trained=None)
    [found] = notes.findings(2)
    assert (found.code, found.count, len(found.lines)) == ("nothing_learnt", 50, MAX_LINES_NAMED)
    assert str(found).endswith("19, 20, ...)")
    assert not notes.has_lesson


def test_answers_that_show_nothing() -> None:
    assert said(notes_of(row("a", "\u200b\u00ad"), row("b", "."))) == {
        "empty_answer": "In 1 row an answer shows nothing (line 1)"
    }


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["yes"] * 45 + ["no"] * 5, "Unbalanced answers: one stands in 45 of 50 rows, the rarest of 2 in 5"),
        (["yes"] * 30, "Unbalanced answers: one stands in 30 of 30 rows"),
        (["yes"] * 25 + ["no"] * 25, None),
        (["yes"] * 10, None),
        (["yes " * 100] * 50, None),
        ([f"answer {n}" for n in range(60)], None),
    ],
)
def test_answers_that_are_nearly_always_the_same(answers: list[str], expected: str | None) -> None:
    found = said(notes_of(*[row(f"question {n}", answer) for n, answer in enumerate(answers)])).get("class_imbalance")
    assert (found and found.partition(" (")[0]) == expected


def test_suspected_personal_data_is_counted_and_never_repeated() -> None:
    notes = notes_of(row("I am ann@example.com", "Hello"), row("c", "4111 1111 1111 1111"))
    found = list(notes.findings(100))
    assert [(one.code, one.lines) for one in found] == [("personal_data", (2,)), ("personal_data", (1,))]
    written = msgspec.json.encode([*found, notes.report()])
    assert b"4111" not in written
    assert b"ann@" not in written


def test_a_finding_says_where() -> None:
    one = DataFinding(code="c", file="f", count=1, message="Something", lines=(7,))
    assert str(one) == "Something (line 7)"
    assert str(msgspec.structs.replace(one, count=9, lines=(7, 8))) == "Something (lines 7, 8, ...)"
    assert str(msgspec.structs.replace(one, lines=())) == "Something"
