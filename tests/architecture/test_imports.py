"""Who may import whom, and what may never stand in the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for root in ("platform", "deployments", "billing")
    for path in sorted((ROOT / root).rglob("*.py"))
    if "migrations/versions" not in path.as_posix()
]
HEAVY = {"ray", "torch", "vllm", "transformers", "peft", "trl"}
BANNED_NAMES = {"utils", "common", "helpers", "manager", "http", "types", "queue"}
MAX_LINES = 400


def test_the_import_contracts_hold() -> None:
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_platform_is_not_a_package() -> None:
    """It would shadow Python's own `platform` for everything started from the root."""
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_source_file_has_one_clear_job(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "says its job in its docstring"
    assert len(text.splitlines()) <= MAX_LINES
    assert path.stem not in BANNED_NAMES


def test_only_deployments_imports_the_model_libraries() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if "tokenyard_deployments" not in path.parts
        for name in _imported(path)
        if name.split(".")[0] in HEAVY
    ]
    assert found == []


@pytest.mark.parametrize("process", ["gateway", "worker", "dashboard"])
def test_a_process_starts_without_the_model_libraries(process: str) -> None:
    code = (
        f"import sys\nfor name in {sorted(HEAVY)!r}: sys.modules[name] = None\nimport tokenyard.bootstrap.{process}\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_tenant_stores_take_the_organization_first() -> None:
    """A query that forgets the tenant is a leak: stores of `operator_store.py` alone may look across."""
    found = []
    for path in SOURCES:
        if path.name == "operator_store.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and re.fullmatch(r"(?!Blob).*(?<!Operator)Store", node.name):
                found += [
                    f"{path.relative_to(ROOT)}: {node.name}.{method.name}"
                    for method in node.body
                    if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not method.name.startswith("_")
                    and (len(method.args.args) < 2 or method.args.args[1].arg != "organization")
                ]
    assert found == []


def test_operator_stores_live_in_operator_files() -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if path.name != "operator_store.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith("OperatorStore")
    ]
    assert found == []


def _imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.append(node.module)
    return names
