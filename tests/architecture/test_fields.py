"""What somebody can set has an effect: a setting that nothing reads is a promise that is not kept."""

import ast
import re
from collections.abc import Iterator
from functools import cache

from support.source_tree import ROOT, SourceFile, classes_by_name, descends, fields, listed, source_files

SPECS = re.compile(r"\w+(Spec|Source)")
"""Structs that are read from a file or sent to a job, and carry what somebody stated there."""
KNOWN = {
    "NewOrganization.weight": "sent to the replica in the meter header, for its scheduler",
    "OrganizationChanges.weight": "sent to the replica in the meter header, for its scheduler",
    "WandbRequest.entity": "written into the run, for whoever uploads it",
    "NewModelPermissions.mode": "there is one value only, and the others are refused",
    "ModelSpec.description": "for who reads the file",
    "ModelSpec.license": "for who reads the file",
}
ENVIRONMENT = re.compile(r"TOKENYARD_[A-Z][A-Z_]*[A-Z]")
NAMED_IN = ("k8s", "Makefile", "README.md", "scripts")


def test_every_setting_is_read() -> None:
    ((_, settings),) = classes_by_name()["Settings"]
    own = [*fields(settings), *(part.name for part in settings.body if isinstance(part, ast.FunctionDef))]
    found = [name for name in own if not name.startswith("_") and name not in _reads()]
    assert not found, listed(found)


def test_every_field_of_a_request_body_is_read() -> None:
    found = [
        f"{file.name}: {node.name}.{field}"
        for file, node in _request_bodies()
        for field in fields(node)
        if field not in _uses() and f"{node.name}.{field}" not in KNOWN and not _reads_itself(node)
    ]
    assert not found, listed(found)


def test_every_field_of_a_spec_is_read() -> None:
    found = [
        f"{file.name}: {name}.{field}"
        for name, places in classes_by_name().items()
        if SPECS.fullmatch(name)
        for file, node in places
        for field in fields(node)
        if field not in _reads() and f"{name}.{field}" not in KNOWN
    ]
    assert not found, listed(found)


def test_every_environment_variable_that_is_named_is_read() -> None:
    ((_, settings),) = classes_by_name()["Settings"]
    known = {f"TOKENYARD_{field.upper()}" for field in fields(settings)}
    for file in source_files():
        texts = (node.value for node in ast.walk(file.tree) if isinstance(node, ast.Constant))
        known |= {name for text in texts if isinstance(text, str) for name in ENVIRONMENT.findall(text)}
    found = [f"{path}: {name}" for path, text in _named_in() for name in set(ENVIRONMENT.findall(text)) - known]
    assert not found, listed(found)


@cache
def _reads() -> frozenset[str]:
    """Return the names of the attributes that the source reads."""
    return frozenset(
        node.attr
        for file in source_files()
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    )


@cache
def _uses() -> frozenset[str]:
    """Return the names that the source reads for more than handing them on under the same name.

    `weight=body.weight`, `weight=weight` and `{"weight": row.weight}` do nothing with the weight but carry it.
    """
    found: set[str] = set()
    for file in source_files():
        carried = set(_carried(file))
        found.update(
            _last(node)
            for node in ast.walk(file.tree)
            if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in carried
        )
    return frozenset(found)


def _carried(file: SourceFile) -> Iterator[int]:
    for node in ast.walk(file.tree):
        pairs: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            pairs = [
                (key if isinstance(key, str) else None, value) for key, value in zip(keys, node.values, strict=True)
            ]
        yield from (
            id(value) for key, value in pairs if isinstance(value, ast.Attribute | ast.Name) and _last(value) == key
        )


def _last(node: ast.Attribute | ast.Name) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id


def _request_bodies() -> Iterator[tuple[SourceFile, ast.ClassDef]]:
    """Yield the pydantic models that routes take, with the models inside them and their parents."""
    taken = {
        name
        for file in source_files()
        for function, _ in file.routes()
        for argument in (*function.args.args, *function.args.kwonlyargs)
        if argument.annotation is not None
        for name in re.findall(r"\w+", ast.unparse(argument.annotation))
    }
    seen: set[str] = set()
    while taken:
        name = taken.pop()
        if name in seen:
            continue
        seen.add(name)
        for file, node in classes_by_name().get(name, ()):
            if descends(node, lambda parent: parent == "BaseModel"):
                yield file, node
                taken |= set(re.findall(r"\w+", " ".join(ast.unparse(part) for part in (*node.bases, *node.body))))


def _reads_itself(node: ast.ClassDef) -> bool:
    """Tell whether a model reads its own fields by iterating over them."""
    return "model_fields_set" in ast.unparse(node)


def _named_in() -> Iterator[tuple[str, str]]:
    for name in NAMED_IN:
        start = ROOT / name
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
