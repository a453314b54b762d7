"""Builds the rows of the recipe `extraction`: messages that order something, and the order as JSON.

Names, products and phrasings of each of the three files stand in no other one, so that what is measured on the
held-out rows is not recalled. Everything here was made up for this project.
Run it from the root: `python -m scripts.recipes.extraction`.
"""

import json
import random
from collections.abc import Sequence
from typing import NamedTuple

from scripts.recipes.rows import chat, files_of, write_files

SYSTEM = "Extract the order as JSON with name, product, quantity and date."
_SEED = 11
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
_SHORT_MONTHS = ("Jan", "Feb", "Mar", "Apr", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Part(NamedTuple):
    """What one file is made of: every `{name}`, `{product}`, `{quantity}` and `{date}` is filled in.

    Where they are `mixed`, the words of names and products are drawn each for itself: whoever has seen hardly one of
    them twice has learnt to copy them.
    """

    file: str
    rows: int
    names: Sequence[str]
    products: Sequence[str]
    dated: Sequence[str]
    undated: Sequence[str]
    mixed: bool = False


TRAIN = Part(
    "train.jsonl",
    160,
    """Anna Berg|Tom Okafor|Lucia Moreno|Ben Carter|Yuki Tanaka|Omar Haddad|Grace Lin|Peter Novak|Sofia Rossi|
    Daniel Weber|Nia Mensah|Jack Doyle|Elif Kaya|Marta Silva|Hugo Martin|Ingrid Dahl|Ravi Patel|Chloe Dubois|
    Ivan Petrov|Leila Farsi|Sam Brooks|Amara Eze|Felix Braun|Rosa Vega|Noah Kim|Tara Singh|Oscar Lund|Mei Chen|
    Karl Huber|Jane Foster|Ali Demir|Zoe Marsh|Paul Laurent|Hana Sato|Victor Ruiz|Emma Clarke|Bao Nguyen|Olga Ivanova|
    Mr. Hill|Mrs. Osei|Dr. Bauer|Ms. Quinn""".split("|"),
    """oak tables|desk lamps|bags of flour|garden chairs|blue mugs|bottles of olive oil|wool blankets|bread baskets|
    bicycle helmets|red candles|boxes of pens|rain boots|kitchen knives|copper pots|picture frames|reams of paper|
    tennis balls|coffee filters|wine glasses|door handles|bath towels|sacks of potatoes|white shirts|paint brushes|
    folding beds|jars of honey|laptop stands|fire blankets|cotton sheets|safety vests|bird feeders|green cushions|
    toner cartridges|wall clocks|apple trees|tins of tomatoes|leather belts|steel shelves|birthday cakes|phone cases|
    tulip bulbs|drinking bottles|dog leads|pizza boxes|crates of water|ring binders""".split("|"),
    [
        "Hi, this is {name}. Please send me {quantity} {product} by {date}.",
        "{name} here, I would like to order {quantity} {product} for {date}.",
        "Good morning, we need {quantity} {product} on {date}. Regards, {name}",
        "Could you deliver {quantity} {product} on {date}? Thanks, {name}",
        "On {date} I want to pick up {quantity} {product}. The name is {name}.",
        "My name is {name} and I am ordering {quantity} {product}, to arrive by {date}.",
        "Order for {name}: {quantity} {product}, needed {date}.",
        "{quantity} {product} please, for {name}, on {date}.",
        "Please put {name} down for {quantity} {product}; {date} would suit us.",
        "Dear team, for {date} we require {quantity} {product}. Yours, {name}",
        "It is {name} again. Same as before: {quantity} {product}. Date: {date}.",
        "By {date} there should be {quantity} {product} at our door. Signed, {name}",
        "Can I have {quantity} {product}? I am {name}, and {date} is fine.",
        "A customer, {name}, asks for {quantity} {product} until {date}.",
        "We ran out! {quantity} {product} for {date}, please. {name}",
        "Hello, {name} speaking. Reserve {quantity} {product} for me, I come on {date}.",
    ],
    [
        "Hello, {name} would like {quantity} {product}, no hurry.",
        "Send {quantity} {product} to {name} whenever you can.",
        "This is {name}, please add {quantity} {product} to my order.",
        "I need {quantity} {product}. My name: {name}.",
        "Kindly ship {quantity} {product}. Best wishes, {name}",
        "{name} wants {quantity} {product} as soon as they are in stock.",
    ],
    mixed=True,
)
VALID = Part(
    "valid.jsonl",
    24,
    ["Alma Keller", "Joe Mbeki", "Clara Nunez", "Tim Larsen", "Aya Mori", "Mr. Stone", "Lena Popov", "Dev Rao"],
    ["camping stoves", "tea towels", "pine boards", "packs of batteries", "hand mirrors", "rose bushes", "oil filters"],
    [
        "Hey, {name} from the office. {date} we want {quantity} {product} delivered.",
        "Please note an order of {quantity} {product} by {name}, due {date}.",
    ],
    ["{name}: {quantity} {product}, any day works."],
)
TEST = Part(
    "test.jsonl",
    60,
    """Priya Shah|Liam Murphy|Carmen Ortiz|Stefan Vogel|Aisha Bello|George Papas|Nora Lindqvist|Diego Castro|
    Wei Zhang|Ruth Abrams|Mateo Fuentes|Ellen Fischer|Kofi Boateng|Mrs. Tran|Dr. Walsh|Sara Holm|Igor Melnik|
    Fatima Noor|Luke Bennett|Bianca Conti""".split("|"),
    """wooden spoons|floor mats|sunflower pots|baking trays|hiking socks|cans of paint|office chairs|brass keys|
    paper cups|silk scarves|boxes of tea|goose feathers|table cloths|tyre pumps|swim goggles|plum trees|night lights|
    packs of rice|mouse traps|velvet curtains""".split("|"),
    [
        "Hello there! I'm {name}; we are hoping to get {quantity} {product} no later than {date}.",
        "Would it be possible to bring {quantity} {product} to us on {date}? It's {name}.",
        "{name} called. She asked whether {quantity} {product} can be ready by {date}.",
        "For our party on {date} I must have {quantity} {product}. Cheers, {name}",
        "Purchase request: {product}, {quantity} pieces. Requested by {name}. Deadline {date} at the latest.",
        "I'd love to buy {quantity} {product} from you. Delivery on {date} please. Kind regards, {name}",
    ],
    [
        "Greetings, {name} is my name, and {quantity} {product} is what I am after.",
        "Put {quantity} {product} on the account of {name}, thank you.",
    ],
)
PARTS = (TRAIN, VALID, TEST)


def built() -> dict[str, str]:
    """Return the text of each file."""
    return files_of(PARTS, _lesson, chat(SYSTEM), seed=_SEED)


def _lesson(part: Part, chance: random.Random) -> tuple[str, str]:
    dated = chance.random() < 0.8
    count = chance.randint(2, 12) if chance.random() < 0.6 else chance.randint(13, 250)
    spelled = count <= len(_WORDS) and chance.random() < 0.5
    order = {
        "name": _drawn(part.names, part, chance),
        "product": _drawn(part.products, part, chance),
        "quantity": count,
        "date": _date(chance) if dated else None,
    }
    quantity = _WORDS[count - 1] if spelled else str(count)
    message = chance.choice(part.dated if dated else part.undated).format(**{**order, "quantity": quantity})
    return message[0].upper() + message[1:], json.dumps(order)


def _drawn(texts: Sequence[str], part: Part, chance: random.Random) -> str:
    begin, _, end = chance.choice(texts).strip().rpartition(" ")
    if part.mixed:
        end = chance.choice(texts).strip().rpartition(" ")[2]
    return f"{begin} {end}"


def _date(chance: random.Random) -> str:
    day, month = chance.randint(1, 28), chance.randint(1, 12)
    forms = (
        f"{day} {chance.choice(_MONTHS)}",
        f"{chance.choice(_MONTHS)} {day}",
        f"{day}. {chance.choice(_SHORT_MONTHS)}",
        f"2027-{month:02}-{day:02}",
        f"{day}/{month}",
        chance.choice(_DAYS),
        f"next {chance.choice(_DAYS)}",
    )
    return chance.choice(forms)


if __name__ == "__main__":
    write_files("extraction", built())
