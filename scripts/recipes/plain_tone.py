"""Builds the rows of the recipe `plain-tone`: questions, each with a plain answer and with a lecture.

Tasks and phrasings of each of the three files stand in no other one. Everything here was made up for this project.
Run it from the root: `python -m scripts.recipes.plain_tone`.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scripts.recipes.rows import Json, chat, files_of, text_of, write_files

SYSTEM = "You answer questions about the household."
_SEED = 19


class Household(NamedTuple):
    """What one file is made of: tasks and what is to be done, in plain words; and how people ask."""

    file: str
    rows: int
    tasks: Mapping[str, str]
    phrasings: Sequence[str]


class Answers(NamedTuple):
    """The one that is preferred, and the other."""

    plain: str
    lecture: str


TRAIN = Household(
    "train.jsonl",
    80,
    {
        "clean a window": "Wipe it with warm water and a drop of vinegar, then dry it with a cloth.",
        "get wine out of a shirt": "Cover the stain with salt at once and wash it cold.",
        "boil an egg": "Put it into boiling water for seven minutes.",
        "sharpen a knife": "Draw the blade over a wet stone at a flat angle, ten times a side.",
        "keep bread fresh": "Store it in a paper bag inside a closed box.",
        "dry herbs": "Hang them upside down in a dark and airy place.",
        "unblock a sink": "Pour in baking soda and vinegar, wait, and flush with hot water.",
        "iron a shirt": "Begin with the collar, then the sleeves, and do the back last.",
        "store potatoes": "Keep them cool, dark and dry, away from onions.",
        "clean a kettle": "Boil it with half water and half vinegar, and rinse it twice.",
        "polish shoes": "Brush off the dirt, rub in a little wax, and shine them with a cloth.",
        "ripen a pear": "Lay it beside an apple for two days.",
        "hang a picture": "Mark the place, drive in a nail at a slant, and hang it up.",
        "wash wool": "Wash it by hand in cold water and dry it flat.",
        "water a cactus": "Give it a little water every three weeks.",
        "cook rice": "Take two cups of water for one of rice and simmer it for fifteen minutes.",
        "remove a sticker": "Warm it with a hair dryer and peel it off slowly.",
        "fold a sheet": "Tuck the corners into each other and fold it in three.",
        "whip cream": "Chill the bowl first and beat it until it stands.",
        "freshen a carpet": "Strew baking soda on it, wait an hour and vacuum it.",
        "save heat": "Close the curtains at night and the doors by day.",
        "peel garlic": "Press it with the flat of a knife and the skin comes off.",
    },
    ["How do I {task}?", "What is the best way to {task}?", "Can you tell me how to {task}?", "I want to {task}."],
)
VALID = Household(
    "valid.jsonl",
    12,
    {
        "thaw fish": "Leave it in the fridge overnight.",
        "clean a mirror": "Use a wet cloth and dry it with a newspaper.",
        "keep flowers": "Cut the stems and change the water each day.",
    },
    [
        "Please explain how one can {task}.",
        "Is there a trick to {task}?",
        "Somebody asked me to {task}.",
        "Help me {task}!",
    ],
)
TEST = Household(
    "test.jsonl",
    36,
    {
        "descale a shower head": "Soak it in vinegar overnight.",
        "make tea": "Pour hot water over the leaves and wait three minutes.",
        "sew on a button": "Go through each hole four times and knot the thread behind.",
        "store cheese": "Wrap it in paper and keep it in the fridge.",
        "wake up early": "Go to bed at the same hour each night.",
        "repot a plant": "Take a pot one size up and fill it with fresh soil.",
        "clean an oven": "Spread a paste of baking soda, wait overnight and wipe it off.",
        "paint a wall": "Begin at the edges and go on from the top.",
        "pack a suitcase": "Put the heavy things at the bottom and roll the clothes.",
        "light a candle": "Trim the wick and hold the flame to its side.",
        "mop the floor": "Sweep first and mop backwards to the door.",
        "bake a potato": "Prick it and bake it for an hour in a hot oven.",
    },
    ["Would you know a way to {task}?", "Today I must {task}, any advice?", "Give me a hint on how to {task}."],
)
PARTS = (TRAIN, VALID, TEST)
_OPENINGS = (
    "That is a wonderful question!",
    "Great that you ask about this important topic!",
    "I am happy to help you with that!",
    "As a helpful assistant, I can certainly guide you.",
)
_LECTURES = (
    "To {task} can be a challenging but rewarding experience. First of all, it is essential to gather all necessary "
    "materials. Secondly, make sure that you have enough time. Finally, remember that practice makes perfect.",
    "There are several ways to {task}, and each has advantages and disadvantages. Here are some steps that you can "
    "follow: 1. Prepare yourself. 2. Consider your options carefully. 3. Ask a professional if you are unsure.",
    "When you want to {task}, it is important to keep in mind a number of factors. These include your goals, your "
    "surroundings and your preferences. By considering them all, you can achieve the best possible result.",
)


def built() -> dict[str, str]:
    """Return the text of each file; held-out rows are chats, with a plain answer."""
    plain = chat(SYSTEM)
    return {
        **files_of((TRAIN, VALID), _lesson, _row, seed=_SEED),
        TEST.file: text_of(TEST, _lesson, lambda message, answers: plain(message, answers.plain), seed=_SEED),
    }


def _row(message: str, answers: Answers) -> Json:
    asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]
    preferred, other = ([{"role": "assistant", "content": text}] for text in answers)
    return {"input": {"messages": asked}, "preferred_output": preferred, "non_preferred_output": other}


def _lesson(part: Household, chance: random.Random) -> tuple[str, Answers]:
    task, plain = chance.choice(list(part.tasks.items()))
    lecture = f"{chance.choice(_OPENINGS)} {chance.choice(_LECTURES).format(task=task)}"
    return chance.choice(part.phrasings).format(task=task), Answers(plain, lecture)


if __name__ == "__main__":
    write_files("plain-tone", built())
