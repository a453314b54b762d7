"""What stands in which file: every slice looks the same, and no folder or file is more than one can take in."""

import ast
import re
from collections import Counter

from support.source_tree import ROOT, SourceFile, bases, listed, source_files

MAX_LINES = 400
MAX_FILES = 15
SLICES = (
    *(
        f"platform/tokenyard/{name}"
        for name in ("tenancy", "catalog", "limits", "gateway", "files", "finetune", "responses", "evals", "webhooks")
    ),
    "billing/tokenyard_billing",
)
SHARED_JOBS = {
    "tables": {"rows", "models_sql", "schema"},
    "store": {"repository", "repo", "dao", "storage"},
    "operator_store": {"operator", "operators", "admin", "admin_store"},
    "views": {"schemas", "shown", "serializers", "responses", "dto", "shapes"},
    "tenant_routes": {"routes", "own_routes", "router", "job_routes", "file_routes", "public_routes"},
    "operator_routes": {"admin_routes", "admin_router", "control_plane", "operator_api"},
    "loops": {"worker", "workers", "tasks", "jobs_loop"},
    "ports": {"interfaces", "protocols"},
}
"""The one file name of a job, and the names that it must not go by."""


def test_a_source_file_says_its_one_job() -> None:
    found = [file.name for file in source_files() if not ast.get_docstring(file.tree)]
    assert not found, listed(found)


def test_a_source_file_is_short() -> None:
    lines = {file.name: len(file.text.splitlines()) for file in source_files()}
    found = [f"{name}: {count} lines" for name, count in lines.items() if count > MAX_LINES]
    assert not found, listed(found)


def test_platform_is_not_a_package() -> None:
    """It would shadow Python's own `platform` for everything started from the root."""
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_a_folder_holds_no_more_files_than_one_can_take_in() -> None:
    count = Counter(file.room for file in source_files() if file.path.name != "__init__.py")
    count.update(
        path.parent.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in {"__init__.py", "conftest.py"}
    )
    found = [f"{room}: {files} files" for room, files in count.items() if files > MAX_FILES]
    assert not found, listed(found)


def test_shared_jobs_have_the_shared_file_names() -> None:
    found = [
        f"{file.name}: is {name}.py elsewhere"
        for file in source_files()
        if _in_a_slice(file)
        for name, others in SHARED_JOBS.items()
        if file.path.stem in others
    ]
    assert not found, listed(found)


def test_tables_live_in_tables() -> None:
    found = [
        f"{file.name}: {node.name}"
        for file in source_files()
        if file.path.stem != "tables"
        for node in file.classes()
        if node.name.endswith("Row") and "Base" in bases(node)
    ]
    assert not found, listed(found)


def test_routes_live_in_route_files() -> None:
    found = [
        f"{file.name}: {function.name}"
        for file in source_files()
        if _in_a_slice(file) and not file.path.stem.endswith("routes")
        for function, _ in file.routes()
    ]
    found += [
        f"{file.name}: makes an APIRouter"
        for file in source_files()
        if _in_a_slice(file) and not file.path.stem.endswith("routes")
        for node in file.nodes(ast.Call)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("APIRouter")
    ]
    assert not found, listed(found)


def test_ports_live_in_ports() -> None:
    """What a slice needs from others is said in one place; the kernel's protocols and a method's rules are no ports."""
    found = [
        f"{file.name}: {node.name}"
        for file in source_files()
        if _in_a_slice(file) and file.path.stem not in {"ports", "method"}
        for node in file.classes()
        if "Protocol" in bases(node) and not node.name.startswith("_")
    ]
    assert not found, listed(found)


def test_operator_stores_live_in_operator_files() -> None:
    found = [
        f"{file.name}: {node.name}"
        for file in source_files()
        if file.path.stem != "operator_store"
        for node in file.classes()
        if node.name.endswith("OperatorStore")
    ]
    assert not found, listed(found)


def test_what_serves_one_tenant_does_not_look_across() -> None:
    found = [
        f"{file.name}: {name}"
        for file in source_files()
        if file.path.stem in {"tenant_routes", "store", "views"}
        for name in file.imports()
        if name.endswith(".operator_store")
    ]
    assert not found, listed(found)


def test_tenant_stores_take_the_organization_first() -> None:
    """A query that forgets the tenant is a leak: stores of `operator_store.py` alone may look across."""
    found = [
        f"{file.name}: {node.name}.{method.name}"
        for file in source_files()
        if file.path.stem != "operator_store"
        for node in file.classes()
        if re.fullmatch(r"(?!Blob).*(?<!Operator)Store", node.name)
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        and not method.name.startswith("_")
        and (len(method.args.args) < 2 or method.args.args[1].arg != "organization")
    ]
    assert not found, listed(found)


def _in_a_slice(file: SourceFile) -> bool:
    return any(file.room == room or file.room.startswith(f"{room}/") for room in SLICES)
