"""Builds the rows of the recipe `grading`: a question, the answer that is expected, a pupil's, and the verdict.

Questions and phrasings of each of the three files stand in no other one. Everything here was made up for this project.
Run it from the root: `python -m scripts.recipes.grading`.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from scripts.recipes.rows import chat, files_of, write_files

SYSTEM = "Grade the pupil's answer: correct, wrong or missing."
_SEED = 17


class Exam(NamedTuple):
    """What one file is made of: questions with their answers, how pupils say these, and how they say nothing."""

    file: str
    rows: int
    questions: Sequence[tuple[str, str]]
    answers: Sequence[str]
    excuses: Sequence[str]


TRAIN = Exam(
    "train.jsonl",
    180,
    [
        ("Which gas do plants take in?", "carbon dioxide"),
        ("What is the capital of France?", "Paris"),
        ("How many legs does a spider have?", "eight"),
        ("Which planet is nearest to the sun?", "Mercury"),
        ("Who wrote Romeo and Juliet?", "Shakespeare"),
        ("What do bees make?", "honey"),
        ("At what temperature does water boil?", "100 degrees"),
        ("What is frozen water called?", "ice"),
        ("Which animal gives us wool?", "the sheep"),
        ("What is seven times eight?", "56"),
        ("Which ocean lies between Europe and America?", "the Atlantic"),
        ("What is the largest land animal?", "the elephant"),
        ("Which metal attracts iron?", "a magnet"),
        ("What colour do blue and yellow make?", "green"),
        ("How many days has a leap year?", "366"),
        ("Which organ pumps blood?", "the heart"),
        ("What do caterpillars turn into?", "butterflies"),
        ("Which language is spoken in Brazil?", "Portuguese"),
        ("What force pulls things down?", "gravity"),
        ("Which river flows through London?", "the Thames"),
        ("What is the opposite of north?", "south"),
        ("Which month comes before May?", "April"),
        ("What is a baby frog called?", "a tadpole"),
        ("Which tool measures temperature?", "a thermometer"),
    ],
    [
        "{answer}",
        "It is {answer}.",
        "I think {answer}",
        "{answer}, I am sure",
        "My answer: {answer}",
        "that is {answer}",
    ],
    ["I don't know.", "no idea", "We did not learn this.", "", "I forgot it", "?"],
)
VALID = Exam(
    "valid.jsonl",
    20,
    [
        ("What do we breathe in to live?", "oxygen"),
        ("How many wheels does a tricycle have?", "three"),
        ("Which bird cannot fly but swims?", "the penguin"),
        ("What is the capital of Italy?", "Rome"),
    ],
    ["Surely {answer}.", "{answer} of course"],
    ["I was ill that week.", "not sure at all"],
)
TEST = Exam(
    "test.jsonl",
    60,
    [
        ("In which country do kangaroos live?", "Australia"),
        ("What is nine plus six?", "15"),
        ("Which star gives us light and warmth?", "the sun"),
        ("What do cows eat most?", "grass"),
        ("Who painted the Mona Lisa?", "Leonardo da Vinci"),
        ("What material is a window made of?", "glass"),
        ("How many hours are in a day?", "24"),
        ("What is the hardest natural stone?", "the diamond"),
        ("Where do fish take their air from?", "their gills"),
        ("Which season follows winter?", "spring"),
        ("What is dried grape called?", "a raisin"),
        ("Which mountain is the highest on earth?", "Mount Everest"),
    ],
    ["It must be {answer}.", "We said {answer} in class.", "Well, {answer}!", "{answer}, if I remember well."],
    ["Sorry, I have to pass.", "nothing comes to my mind", "I could not say.", "skip this one"],
)
PARTS = (TRAIN, VALID, TEST)


def built() -> dict[str, str]:
    """Return the text of each file."""
    return files_of(PARTS, _lesson, chat(SYSTEM), seed=_SEED)


def _lesson(part: Exam, chance: random.Random) -> tuple[str, str]:
    (question, expected), verdict = chance.choice(part.questions), chance.choice(("correct", "wrong", "missing"))
    others = [answer for _, answer in part.questions if answer != expected]
    given = {"correct": expected, "wrong": chance.choice(others)}.get(verdict)
    said = chance.choice(part.excuses) if given is None else chance.choice(part.answers).format(answer=given)
    return f"Question: {question}\nExpected: {expected}\nPupil: {said}", verdict


if __name__ == "__main__":
    write_files("grading", built())
