"""Builds the rows of the recipe `translation`: short English sentences of a shop's day, and the same in German.

A model this small brings no German along: it can learn the words that stand here, and how German bends them. So the
three files share their words, and no sentence. Everything here was made up for this project.
Run it from the root: `python -m scripts.recipes.translation`.
"""

import random
from collections.abc import Mapping
from typing import NamedTuple

from scripts.recipes.rows import chat, text_of, write_files

SYSTEM = "Translate into German."
_SEED = 13
_WHO = {"my brother": "mein Bruder", "the woman": "die Frau", "our neighbour": "unser Nachbar", "the guest": "der Gast"}
_DOES = {"buys": "kauft", "sees": "sieht", "needs": "braucht", "sells": "verkauft", "brings": "bringt"}
_LIKE = {"red": "rot", "new": "neu", "small": "klein", "white": "weiß", "cheap": "billig"}
_WHEN = {"today": "heute", "tomorrow": "morgen", "on Monday": "am Montag", "again": "wieder", "every day": "jeden Tag"}
_FOR = {"for the child": "für das Kind", "for his father": "für seinen Vater", "for the school": "für die Schule"}
_ENDINGS = {"m": ("einen", "en"), "f": ("eine", "e"), "n": ("ein", "es")}
_THINGS: Mapping[str, tuple[str, str]] = {
    "table": ("m", "Tisch"),
    "chair": ("m", "Stuhl"),
    "coat": ("m", "Mantel"),
    "lamp": ("f", "Lampe"),
    "bag": ("f", "Tasche"),
    "cup": ("f", "Tasse"),
    "book": ("n", "Buch"),
    "house": ("n", "Haus"),
    "knife": ("n", "Messer"),
}


class Sentences(NamedTuple):
    """How many sentences a file has, and what part of one's runs of three words a sentence before it may have, too."""

    file: str
    rows: int
    shared: float


TRAIN = Sentences("train.jsonl", 160, 0.9)
VALID = Sentences("valid.jsonl", 20, 0.9)
TEST = Sentences("test.jsonl", 60, 0.5)
PARTS = (TRAIN, VALID, TEST)


def built() -> dict[str, str]:
    """Return the text of each file."""
    learnt: list[set[str]] = []

    def lesson(part: Sentences, chance: random.Random) -> tuple[str, str]:
        while True:
            english, german = _sentence(chance)
            runs = _runs_of_three(english)
            if max((len(runs & other) for other in learnt), default=0) <= part.shared * len(runs):
                break
        if part is not TEST:
            learnt.append(runs)
        return english, german

    return {part.file: text_of(part, lesson, chat(SYSTEM), seed=_SEED) for part in PARTS}


def _runs_of_three(sentence: str) -> set[str]:
    words = sentence.casefold().removesuffix(".").split()
    return {" ".join(words[start : start + 3]) for start in range(len(words) - 2)}


def _sentence(chance: random.Random) -> tuple[str, str]:
    (who, wer), (does, tut), (like, wie), (whom, wen), (when, wann) = (
        chance.choice(list(words.items())) for words in (_WHO, _DOES, _LIKE, _FOR, _WHEN)
    )
    thing, (gender, ding) = chance.choice(list(_THINGS.items()))
    article, ending = _ENDINGS[gender]
    english = f"{who} {does} a {like} {thing} {whom} {when}."
    german = f"{wer} {tut} {wann} {article} {wie}{ending} {ding} {wen}."
    return english[0].upper() + english[1:], german[0].upper() + german[1:]


if __name__ == "__main__":
    write_files("translation", built())
