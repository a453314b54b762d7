"""The source tree as the architecture tests read it: every file parsed once, nothing imported."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "platform/tokenyard",
    "deployments/tokenyard_deployments",
    "billing/tokenyard_billing",
    "billing/tokenyard_dashboard",
)
ROUTE_METHODS = {"get", "post", "put", "patch", "delete"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class SourceFile:
    """One file of the source tree; `package` is one of `PACKAGES`."""

    path: Path
    package: str

    @property
    def name(self) -> str:
        """The path from the repository's root."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        """The dotted name; that of a package is the package's own."""
        parts = self.path.relative_to(ROOT / self.package).with_suffix("").parts
        return ".".join((self.package.rpartition("/")[2], *parts)).removesuffix(".__init__")

    @property
    def room(self) -> str:
        """The folder, from the repository's root."""
        return self.path.parent.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        """Yield the nodes of these kinds, at any depth."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))

    def classes(self) -> Iterator[ast.ClassDef]:
        """Yield the classes, at any depth."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    def functions(self) -> Iterator[Function]:
        """Yield the functions and methods, at any depth."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def imports(self, *, first: bool = False) -> Iterator[str]:
        """Yield what is imported, also inside functions, but not what only the type checker imports.

        `first` leaves out what is imported later than the file itself. Of `from a import b` both `a` and `a.b` are
        yielded: either may be the module.
        """
        skipped = {
            id(inner)
            for node in self.nodes(ast.If)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in self.tree.body if first else self.nodes(ast.Import, ast.ImportFrom):
            if id(node) in skipped:
                continue
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def routes(self) -> Iterator[tuple[Function, ast.Call]]:
        """Yield each function that serves a route, with its decorator."""
        for function in self.functions():
            for decorator in function.decorator_list:
                if (
                    isinstance(decorator, ast.Call)
                    and isinstance(decorator.func, ast.Attribute)
                    and decorator.func.attr in ROUTE_METHODS
                ):
                    yield function, decorator


@cache
def source_files() -> tuple[SourceFile, ...]:
    """Return every file of the source tree but the migrations, which are history."""
    return tuple(
        SourceFile(path, package)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations/versions" not in path.as_posix()
    )


@cache
def classes_by_name() -> dict[str, list[tuple[SourceFile, ast.ClassDef]]]:
    """Return all classes; a name that several classes share has several entries."""
    found: dict[str, list[tuple[SourceFile, ast.ClassDef]]] = {}
    for file in source_files():
        for node in file.classes():
            found.setdefault(node.name, []).append((file, node))
    return found


def bases(node: ast.ClassDef) -> list[str]:
    """Return the names of a class's parents, without their modules and parameters."""
    names = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
    return [ast.unparse(name).rpartition(".")[2] for name in names]


def descends(node: ast.ClassDef, is_ancestor: Callable[[str], bool]) -> bool:
    """Tell whether a class has such an ancestor, as far as the source tree says."""
    seen: set[str] = set()
    waiting = bases(node)
    while waiting:
        name = waiting.pop()
        if is_ancestor(name):
            return True
        if name not in seen:
            seen.add(name)
            waiting += [parent for _, found in classes_by_name().get(name, ()) for parent in bases(found)]
    return False


def fields(node: ast.ClassDef) -> list[str]:
    """Return the fields that a class declares by annotation."""
    return [
        part.target.id
        for part in node.body
        if isinstance(part, ast.AnnAssign)
        and isinstance(part.target, ast.Name)
        and not part.target.id.startswith("_")
        and part.target.id != "model_config"
        and "ClassVar" not in ast.unparse(part.annotation)
    ]


def listed(findings: list[str]) -> str:
    """Return findings one a line, for the message of an assertion."""
    return f"{len(findings)} found:\n" + "\n".join(sorted(findings))
