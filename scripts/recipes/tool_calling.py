"""Builds the rows of the recipe `tool-calling`: wishes, and the function of a home that fulfils each.

Cities, artists, rooms and phrasings of each of the three files stand in no other one. Everything here was made up for
this project. Run it from the root: `python -m scripts.recipes.tool_calling`.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from scripts.recipes.rows import Json, files_of, write_files

_SEED = 7


def _function(name: str, argument: str, kind: str) -> Json:
    parameters = {"type": "object", "properties": {argument: {"type": kind}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    _function("get_weather", "city", "string"),
    _function("play_music", "artist", "string"),
    _function("set_timer", "minutes", "integer"),
    _function("turn_off_light", "room", "string"),
]


class Wishes(NamedTuple):
    """What one file is made of: of each function, its phrasings; and what is put into them."""

    file: str
    rows: int
    phrasings: Mapping[str, Sequence[str]]
    cities: Sequence[str]
    artists: Sequence[str]
    rooms: Sequence[str]


TRAIN = Wishes(
    "train.jsonl",
    160,
    {
        "get_weather": [
            "What is the weather like in {city}?",
            "Will it rain in {city} today?",
            "How warm is it in {city} right now?",
            "I fly to {city} tomorrow, do I need a coat?",
            "weather {city}",
        ],
        "play_music": [
            "Play something by {artist}.",
            "I want to hear {artist}",
            "Put on {artist} please",
            "Some music from {artist} would be nice now.",
            "Can we listen to {artist}?",
        ],
        "set_timer": [
            "Set a timer for {minutes} minutes.",
            "Wake me in {minutes} minutes",
            "Remind me when {minutes} minutes are over.",
            "The pasta needs {minutes} minutes, tell me then.",
            "timer {minutes} min",
        ],
        "turn_off_light": [
            "Turn off the light in the {room}.",
            "The lamp in the {room} is still on, please change that.",
            "Make the {room} dark",
            "No more light in the {room}, thanks.",
            "{room} light off",
        ],
    },
    """Oslo|Madrid|Cairo|Lima|Vienna|Dublin|Seoul|Nairobi|Athens|Prague|Boston|Toronto|Mumbai|Warsaw|Lisbon|Havana|
    Zurich|Perth|Quito|Bergen|Hamburg|Naples|Denver|Kyoto|Tunis|Geneva""".split("|"),
    """the Blue Herons|Maria Lund|the Paper Kites|Johnny Vale|Nadia Rose|the Iron Boats|Clara Winter|Otis Grand|
    the Small Hours|Elena Marsh|Tommy Quick|the Night Ferries|Ada Bloom|Sam Harbour|the Old Lanterns|Rita Stone|
    Leo Parks|the Velvet Owls|Greta Moon|Hank Rivers""".split("|"),
    "kitchen|bedroom|hall|bathroom|garage|office|cellar|living room|attic|nursery|dining room|guest room".split("|"),
)
VALID = Wishes(
    "valid.jsonl",
    20,
    {
        "get_weather": ["Tell me today's forecast for {city}."],
        "play_music": ["I am in the mood for {artist}."],
        "set_timer": ["Let me know after {minutes} minutes."],
        "turn_off_light": ["Please switch the {room} lamp off."],
    },
    ["Malmo", "Turin", "Delhi", "Austin", "Cork"],
    ["Billy Frost", "the Copper Foxes", "Iris Vane"],
    ["workshop", "pantry", "laundry"],
)
TEST = Wishes(
    "test.jsonl",
    60,
    {
        "get_weather": [
            "Should I take an umbrella when I go out in {city}?",
            "Is the sun shining over {city} at the moment?",
            "How cold does it get in {city} this evening?",
        ],
        "play_music": [
            "My daughter loves {artist}, start one of their songs.",
            "Let us dance to {artist}!",
            "Any track from {artist} will do, go ahead.",
        ],
        "set_timer": [
            "The eggs must come out in {minutes} minutes, beep then.",
            "Count down {minutes} minutes for my break.",
            "Give me a signal in {minutes} minutes from now.",
        ],
        "turn_off_light": [
            "I forgot the lights in the {room}, could you kill them?",
            "We are leaving the {room}, so darken it.",
            "Save some power and shut off the {room} lights.",
        ],
    },
    """Helsinki|Santiago|Munich|Brussels|Osaka|Chicago|Porto|Tallinn|Marseille|Accra|Calgary|Riga|Sydney|
    Jakarta|Bogota""".split("|"),
    """the Silver Pines|Nora Fields|Eddie Lake|the Quiet Harbours|Lola Reyes|the Brass Monkeys|Walter Green|
    the Lost Umbrellas|Vera Cole|Max Delaney""".split("|"),
    "library|studio|corridor|playroom|basement|conservatory|wine cellar|changing room|sauna|porch".split("|"),
)
PARTS = (TRAIN, VALID, TEST)


class Call(NamedTuple):
    """The function that is to be called, and with what."""

    name: str
    arguments: Json


def built() -> dict[str, str]:
    """Return the text of each file."""
    return files_of(PARTS, _lesson, _row, seed=_SEED)


def _row(message: str, call: Call) -> Json:
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    answer = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    return {"messages": [{"role": "user", "content": message}, answer], "tools": TOOLS}


def _lesson(part: Wishes, chance: random.Random) -> tuple[str, Call]:
    name = chance.choice(list(part.phrasings))
    argument, chosen = _ARGUMENTS[name]
    value = chosen(part, chance)
    message = chance.choice(part.phrasings[name]).format(**{argument: value})
    return message[0].upper() + message[1:], Call(name, {argument: value})


_ARGUMENTS: Mapping[str, tuple[str, Callable[[Wishes, random.Random], str | int]]] = {
    "get_weather": ("city", lambda part, chance: chance.choice(part.cities).strip()),
    "play_music": ("artist", lambda part, chance: chance.choice(part.artists).strip()),
    "set_timer": ("minutes", lambda _part, chance: chance.randint(2, 90)),
    "turn_off_light": ("room", lambda part, chance: chance.choice(part.rooms).strip()),
}


if __name__ == "__main__":
    write_files("tool-calling", built())
