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


def preference_rows(count: int, *, better: str = "Blue.", worse: str = "Who knows?") -> bytes:
    """Return a training file of preferences with `count` rows."""
    row = {
        "input": {"messages": [{"role": "user", "content": "Which colour is the sky?"}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
    }
    return (json.dumps(row) + "\n").encode() * count


def questions(count: int, *, answer: str = "Blue") -> bytes:
    """Return a training file of reinforcement fine-tuning with `count` rows; graders find `item.answer`."""
    row = {"messages": [{"role": "user", "content": "Which colour is the sky?"}], "answer": answer}
    return (json.dumps(row) + "\n").encode() * count
