"""Training files for tests."""

import json


def rows(count: int, *, answer: str = "Blue.") -> bytes:
    """Return a training file with `count` rows."""
    row = {
        "messages": [
            {"role": "user", "content": "Which colour is the sky?"},
            {"role": "assistant", "content": answer},
        ]
    }
    return (json.dumps(row) + "\n").encode() * count
