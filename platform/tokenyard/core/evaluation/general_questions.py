"""What any model knew before it was tuned: short questions, each with one word or number that a right answer has.

All of them were written for this list.
"""

import re

from tokenyard.core.evaluation.questions import Question, plain_question

_QUESTIONS = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Japan?", "Tokyo"),
    ("What is the capital of Italy?", "Rome"),
    ("In which country is Berlin?", "Germany"),
    ("On which continent is Egypt?", "Africa"),
    ("Which ocean lies between Europe and America?", "Atlantic"),
    ("Which planet do we live on?", "Earth"),
    ("Which star gives the Earth its light?", "Sun"),
    ("How many days has a week?", "7|seven"),
    ("How many months has a year?", "12|twelve"),
    ("How many minutes has an hour?", "60|sixty"),
    ("How many legs has a spider?", "8|eight"),
    ("What is 2 + 2?", "4|four"),
    ("What is 10 - 3?", "7|seven"),
    ("What is 3 times 3?", "9|nine"),
    ("Which number comes after 19?", "20|twenty"),
    ("Which month comes after March?", "April"),
    ("Which day comes after Monday?", "Tuesday"),
    ("Which season comes after winter?", "spring"),
    ("What is the opposite of hot?", "cold"),
    ("What is the opposite of up?", "down"),
    ("What is the plural of the word 'child'?", "children"),
    ("What is the past tense of the verb 'go'?", "went"),
    ("Which colour do blue and yellow paint make together?", "green"),
    ("Which colour is a ripe banana?", "yellow"),
    ("What do bees make that people eat?", "honey"),
    ("What is frozen water called?", "ice"),
    ("Which gas in the air do people need to breathe?", "oxygen"),
    ("Which animal barks?", "dog"),
    ("What is the chemical formula of water?", "H2O"),
)


def general_questions() -> list[Question]:
    """Return them; what is expected of each are words, any of which is right, with `|` between."""
    return [plain_question(f"{text} Answer in one word.", expected) for text, expected in _QUESTIONS]


def is_right(answer: str, expected: str) -> bool:
    """Tell whether one of the expected words stands in the answer, as a word and whatever its case."""
    words = "|".join(map(re.escape, expected.split("|")))
    return re.search(rf"(?<!\w)(?:{words})(?!\w)", answer, re.IGNORECASE) is not None
