"""Builds the rows of the recipe `summarization`: long-winded messages to a shop, and what each comes to in one line.

Items, troubles and phrasings of each of the three files stand in no other one. Everything here was made up for this
project. Run it from the root: `python -m scripts.recipes.summarization`.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from scripts.recipes.rows import chat, files_of, write_files

SYSTEM = "Summarize the customer's message in one line: item, trouble, wish."
_SEED = 3


class Complaints(NamedTuple):
    """What one file is made of. `wishes` are phrasings and what each comes to."""

    file: str
    rows: int
    items: Sequence[str]
    troubles: Sequence[str]
    greetings: Sequence[str]
    stories: Sequence[str]
    asides: Sequence[str]
    wishes: Sequence[tuple[str, str]]


TRAIN = Complaints(
    "train.jsonl",
    160,
    """toaster|blender|coffee machine|desk chair|garden hose|bicycle pump|rice cooker|bookshelf|electric kettle|
    hair dryer|table lamp|vacuum cleaner|tent|water filter|drill|backpack|radio|alarm clock|printer|frying pan|
    lawn mower|baby monitor|suitcase|heater""".split("|"),
    """does not switch on|leaks|is scratched|makes a loud noise|has a broken handle|smells of plastic|
    gets far too hot|lacks a screw|wobbles|is the wrong colour|stopped after two days|has a cracked lid|
    is too small|blinks all the time""".split("|"),
    ["Hello there,", "Good evening,", "Dear team,", "Hi!", "To whom it may concern,"],
    [
        "last week I bought a {item} from you. Sadly it {trouble}.",
        "my {item} came on Monday, and since the first day I see that it {trouble}.",
        "I am writing about the {item} that you sent me, which {trouble}.",
        "we have had our new {item} for a short while, but it {trouble}.",
        "the {item} I ordered {trouble}, which I did not expect at this price.",
    ],
    [
        "My neighbour has one as well and is happy with it.",
        "I have been your customer for many years.",
        "The parcel itself looked fine.",
        "My husband could not find out why.",
        "It was a present for my sister.",
        "The weather was awful that day, too.",
    ],
    [
        ("Please send me a new one.", "replacement"),
        ("I would like a new one instead.", "replacement"),
        ("I want my money back.", "refund"),
        ("Kindly return what I paid.", "refund"),
        ("Can somebody repair it?", "repair"),
        ("I hope that you can fix it.", "repair"),
        ("What do you advise me to do?", "advice"),
        ("Any idea how to go on?", "advice"),
    ],
)
VALID = Complaints(
    "valid.jsonl",
    20,
    ["waffle iron", "office lamp", "hiking stove", "sofa"],
    ["rattles at night", "has a loose cable", "fell apart"],
    ["Good day,"],
    ["about my order, the {item}: it {trouble}, I am sorry to say."],
    ["We were so looking forward to it."],
    [("Could I have another one?", "replacement"), ("Please pay me back.", "refund")],
)
TEST = Complaints(
    "test.jsonl",
    60,
    """ladder|air fryer|keyboard|hammock|mixer|projector|sewing machine|bird cage|cool box|microscope|telescope|
    camping bed|garden bench|juicer|fan""".split("|"),
    """does not close|is bent|came without a plug|loses water|squeaks|has a dent in its side|arrived dirty|
    works only half of the time""".split("|"),
    ["Greetings,", "Hello to all of you,", "Good afternoon,"],
    [
        "there is something wrong with the {item} of my last order, because it {trouble}.",
        "you delivered a {item} to our house on Friday. Now I find that it {trouble}.",
        "I unpacked the {item} yesterday and was not pleased: it {trouble}.",
    ],
    [
        "The children are disappointed.",
        "Your driver was very kind, by the way.",
        "I tried everything in the booklet.",
    ],
    [
        ("Swap it for one that is in order, please.", "replacement"),
        ("I expect to be paid back in full.", "refund"),
        ("Is there a workshop that can mend it?", "repair"),
        ("Do you have a tip for me?", "advice"),
    ],
)
PARTS = (TRAIN, VALID, TEST)


def built() -> dict[str, str]:
    """Return the text of each file."""
    return files_of(PARTS, _lesson, chat(SYSTEM), seed=_SEED)


def _lesson(part: Complaints, chance: random.Random) -> tuple[str, str]:
    item, trouble = chance.choice(part.items).strip(), chance.choice(part.troubles).strip()
    story = chance.choice(part.stories).format(item=item, trouble=trouble)
    asked, wish = chance.choice(part.wishes)
    sentences = [chance.choice(part.greetings), story, chance.choice(part.asides), asked]
    return " ".join(sentences), f"{item.capitalize()}: {trouble}. Wish: {wish}."


if __name__ == "__main__":
    write_files("summarization", built())
