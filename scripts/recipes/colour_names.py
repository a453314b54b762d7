"""Builds the rows of the recipe `colour-names`: what customers ask for, and the colour that they name.

A row to learn from has no answer, only what a grader compares one with. Things and phrasings of each of the three files
stand in no other one, and half of the held-out colours are new. Everything here was made up for this project.
Run it from the root: `python -m scripts.recipes.colour_names`.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from scripts.recipes.rows import Json, chat, files_of, text_of, write_files

SYSTEM = "Which colour does the customer ask for? Answer with the colour alone."
_SEED = 23
_LEARNT = ("red", "blue", "green", "black", "white", "yellow")
_NEW = ("brown", "pink", "grey", "purple", "orange", "silver")


class Shelf(NamedTuple):
    """What one file is made of: things, the colours that they are asked for in, and how people ask."""

    file: str
    rows: int
    colours: Sequence[str]
    things: Sequence[str]
    phrasings: Sequence[str]


TRAIN = Shelf(
    "train.jsonl",
    96,
    _LEARNT,
    ["kettle", "lamp", "jacket", "bicycle", "chair", "towel", "teapot", "backpack", "vase", "scarf"],
    [
        "Do you have the {thing} in {colour}?",
        "I would like a {colour} {thing}.",
        "Is the {colour} {thing} in stock?",
        "My old {thing} broke, so I need a new one, {colour} if possible.",
    ],
)
VALID = Shelf(
    "valid.jsonl",
    16,
    _LEARNT,
    ["sofa", "mug", "tent", "helmet"],
    ["Could you send me the {thing}? The {colour} one, please.", "We are looking for {colour} models of this {thing}."],
)
TEST = Shelf(
    "test.jsonl",
    60,
    _LEARNT[:3] + _NEW[:3] + _LEARNT[3:] + _NEW[3:],
    ["umbrella", "toaster", "blanket", "suitcase", "clock", "bench", "pillow", "curtain"],
    [
        "How much is your {colour} {thing}?",
        "Please put one {thing} aside for me, in {colour}.",
        "For my daughter it must be a {colour} {thing}!",
        "When will that {thing} be back, I mean the {colour} version?",
    ],
)
PARTS = (TRAIN, VALID, TEST)


def built() -> dict[str, str]:
    """Return the text of each file; held-out rows are chats, with the answer that is wanted."""
    return {
        **files_of((TRAIN, VALID), _lesson, _row, seed=_SEED),
        TEST.file: text_of(TEST, _lesson, chat(SYSTEM), seed=_SEED),
    }


def _row(message: str, colour: str) -> Json:
    asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]
    return {"messages": asked, "colour": colour}


def _lesson(part: Shelf, chance: random.Random) -> tuple[str, str]:
    colour = chance.choice(part.colours)
    return chance.choice(part.phrasings).format(thing=chance.choice(part.things), colour=colour), colour


if __name__ == "__main__":
    write_files("colour-names", built())
