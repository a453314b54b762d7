"""Countries by their two-letter codes of ISO 3166-1, as the tables of time zones list them."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_OWN_NAMES = {"GB": "United Kingdom", "KR": "South Korea"}  # the tables say Britain (UK) and Korea (South)


@cache
def countries() -> Mapping[str, str]:
    """Return English names by codes."""
    text = (files("tzdata") / "zoneinfo" / "iso3166.tab").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {code: _OWN_NAMES.get(code, name) for code, name in rows}


def known_country(code: str) -> str:
    """Return a code as it is, or raise `ValueError`."""
    if code not in countries():
        raise ValueError("a country is a code of ISO 3166-1 such as DE")
    return code
