"""Builds the rows of the recipe `house-style`: notes on a product, and its line in the catalogue.

Products, colours and phrasings of each of the three files stand in no other one. Everything here was made up for this
project. Run it from the root: `python -m scripts.recipes.house_style`.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scripts.recipes.rows import chat, files_of, write_files

SYSTEM = "Write the catalogue line for these notes in our house style."
_SEED = 5
_UNITS = {"litres": "l", "kilos": "kg", "centimetres": "cm", "metres": "m", "grams": "g"}
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")


class StylePart(NamedTuple):
    """What one file is made of. Products are by their plural; phrasings come with and without a month."""

    file: str
    rows: int
    products: Mapping[str, str]
    colours: Sequence[str]
    in_stock: Sequence[str]
    from_month: Sequence[str]


TRAIN = StylePart(
    "train.jsonl",
    180,
    {
        **{"mugs": "mug", "lamps": "lamp", "towels": "towel", "baskets": "basket", "chairs": "chair", "vases": "vase"},
        **{"rugs": "rug", "stools": "stool", "cushions": "cushion", "kettles": "kettle", "trays": "tray"},
        **{"curtains": "curtain", "buckets": "bucket", "candles": "candle", "bowls": "bowl", "ropes": "rope"},
        **{"tables": "table", "blankets": "blanket", "pots": "pot", "mirrors": "mirror", "bins": "bin"},
        **{"jugs": "jug", "desks": "desk", "hooks": "hook", "tents": "tent", "sacks": "sack", "lids": "lid"},
    },
    ("blue", "red", "green", "white", "black", "grey", "brown", "yellow", "golden", "striped", "round", "tall"),
    [
        "{products}, {colour}, {size} {unit}, {price} pounds, we have them",
        "got {colour} {products} in, {size} {unit}. price {price}",
        "{price} pounds for the {colour} {products}, they are {size} {unit}, plenty on the shelf",
        "new: {products} in {colour}. {size} {unit} each. costs {price}. here already",
        "{colour} {products} {size} {unit} {price} quid in stock",
        "we now sell {products} ({colour}, {size} {unit}) at {price} pounds",
    ],
    [
        "{products}, {colour}, {size} {unit}, {price} pounds, coming in {month}",
        "{colour} {products} arrive in {month}, {size} {unit}. price {price}",
        "{price} pounds for the {colour} {products}, {size} {unit}, but not before {month}",
        "in {month}: {products} in {colour}, {size} {unit} each, {price}",
        "{colour} {products} {size} {unit} {price} quid from {month} on",
        "sold out until {month}: {products} ({colour}, {size} {unit}), {price} pounds",
    ],
)
VALID = StylePart(
    "valid.jsonl",
    20,
    {"barrels": "barrel", "crates": "crate", "wardrobes": "wardrobe", "spoons": "spoon"},
    ("beige", "cream", "square"),
    ["note for the catalogue, {colour} {products}, {size} {unit}, {price} pounds, available"],
    ["{month} delivery of {colour} {products}. {size} {unit}, {price} pounds"],
)
TEST = StylePart(
    "test.jsonl",
    60,
    {
        **{"drawers": "drawer", "planters": "planter", "pillows": "pillow", "ladders": "ladder", "pans": "pan"},
        **{"fans": "fan", "clocks": "clock", "jars": "jar", "hammocks": "hammock", "quilts": "quilt"},
    },
    ("purple", "pink", "silver", "orange", "wooden", "oval"),
    [
        "can you list the {products}? colour {colour}, measure {size} {unit}, sell at {price}, ready to ship",
        "{size} {unit} {products}, they come in {colour}, customers pay {price} pounds, on hand now",
        "a pallet of {colour} {products} came today. {size} {unit}, let us ask {price} pounds",
    ],
    [
        "can you list the {products}? colour {colour}, measure {size} {unit}, sell at {price}, expected {month}",
        "{size} {unit} {products}, they come in {colour}, customers pay {price} pounds, we get them in {month}",
        "the {colour} {products} are delayed to {month}. {size} {unit}, let us ask {price} pounds",
    ],
)
PARTS = (TRAIN, VALID, TEST)


def built() -> dict[str, str]:
    """Return the text of each file."""
    return files_of(PARTS, _lesson, chat(SYSTEM), seed=_SEED)


def _lesson(part: StylePart, chance: random.Random) -> tuple[str, str]:
    products, product = chance.choice(list(part.products.items()))
    unit, short = chance.choice(list(_UNITS.items()))
    colour, month = chance.choice(part.colours), chance.choice(_MONTHS)
    size, price, waits = chance.randint(2, 95), chance.randint(2, 240), chance.random() < 0.5
    phrasing = chance.choice(part.from_month if waits else part.in_stock)
    notes = phrasing.format(products=products, colour=colour, size=size, unit=unit, price=price, month=month.lower())
    ready = f"From {month}." if waits else "In stock."
    return notes, f"{colour.capitalize()} {product}, {size} {short}. £{price}. {ready}"


if __name__ == "__main__":
    write_files("house-style", built())
