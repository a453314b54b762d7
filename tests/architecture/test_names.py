"""One concept, one name; one name, one class; and the field's terms, not a dialect."""

import ast
import re

from support.source_tree import SourceFile, classes_by_name, listed, source_files

FILE_NAMES = {"utils", "common", "helpers", "manager", "http", "types", "queue"}
"""They say nothing, or shadow a module of Python's own."""
DIALECT = {
    "_afterthought_": "a correction, a late report",
    "_board_": "registry",
    "_bur(y|ied)_": "dead letter",
    "_door_": "client, or session",
    "_evidence_": "report",
    "_hear_": "read, receive",
    "_last_words_": "final event",
    "_screening_": "validation",
    "_secret_lines_": "environment file",
    "_settle_down_": "drain",
    "^_shown_": "view",
    "^_turns_$": "advisory lock",
}
"""Words of the first version, and the field's term for them."""


def test_class_names_are_unique() -> None:
    """Over the whole source tree. A class whose name begins with `_` belongs to its file alone."""
    found = [
        f"{name}: {', '.join(file.name for file, _ in places)}"
        for name, places in classes_by_name().items()
        if len(places) > 1 and not name.startswith("_")
    ]
    assert not found, listed(found)


def test_a_file_name_says_something() -> None:
    found = [file.name for file in source_files() if file.path.stem in FILE_NAMES]
    assert not found, listed(found)


def test_names_are_the_field_s() -> None:
    found = sorted(
        f"{file.name}: {name} ({term})"
        for file in source_files()
        for name in {*_names(file), file.path.stem}
        for word, term in DIALECT.items()
        if re.search(word, f"_{_snake(name)}_")
    )
    assert not found, listed(found)


def _names(file: SourceFile) -> set[str]:
    """Return the names of a file's classes, functions and parameters."""
    parameters = {node.arg for node in ast.walk(file.tree) if isinstance(node, ast.arg)}
    return {node.name for node in file.classes()} | {node.name for node in file.functions()} | parameters


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")
