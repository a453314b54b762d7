"""What crosses from one slice to another, or from a store to a route, has a type of its own."""

import ast
from collections.abc import Iterator

from support.source_tree import Function, SourceFile, listed, source_files

BOUNDARY_FILES = {"ports", "store", "operator_store", "views"}
"""What other slices and the routes see of a slice."""


def test_no_boundary_takes_or_gives_anything_untyped() -> None:
    """`Any` is for what comes from outside and is read on the spot. Free JSON is `dict[str, object]`, by name."""
    found = [
        f"{file.name}:{function.lineno} {function.name}: {ast.unparse(annotation)}"
        for file in source_files()
        if file.path.stem in BOUNDARY_FILES or file.path.stem.endswith("routes")
        for function in file.functions()
        if not _private(function)
        for annotation in _annotations(function)
        if _is_untyped(annotation)
    ]
    assert not found, listed(found)


def test_no_view_has_an_untyped_field() -> None:
    found = [
        f"{file.name}:{part.lineno} {node.name}.{ast.unparse(part.target)}: {ast.unparse(part.annotation)}"
        for file in source_files()
        if file.path.stem in BOUNDARY_FILES or file.path.stem.endswith("routes") or _is_core(file)
        for node in file.classes()
        for part in node.body
        if isinstance(part, ast.AnnAssign) and _is_untyped(part.annotation)
    ]
    assert not found, listed(found)


def test_what_another_room_uses_names_its_types() -> None:
    """Functions, and public methods of classes, that are imported from another folder below a package."""
    used = {
        (name.rpartition(".")[0], name.rpartition(".")[2])
        for file in source_files()
        for name in file.imports()
        if name.split(".")[:2] != file.module.split(".")[:2]
    }
    found = [
        f"{file.name}:{function.lineno} {function.name}: {ast.unparse(annotation)}"
        for file in source_files()
        for node in file.tree.body
        if isinstance(node, ast.ClassDef | Function) and (file.module, node.name) in used
        for function in (node.body if isinstance(node, ast.ClassDef) else [node])
        if isinstance(function, Function) and (not _private(function) or function.name == "__init__")
        for annotation in _annotations(function)
        if _is_untyped(annotation)
    ]
    assert not found, listed(found)


def _annotations(function: Function) -> Iterator[ast.expr]:
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None and argument.annotation is not None:
            yield argument.annotation
    if function.returns is not None:
        yield function.returns


def _is_untyped(annotation: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(annotation))


def _private(function: Function) -> bool:
    return function.name.startswith("_")


def _is_core(file: SourceFile) -> bool:
    return file.room == "platform/tokenyard/core"
