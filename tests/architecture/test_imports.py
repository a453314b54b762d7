"""Who may import whom."""

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support.source_tree import ROOT, SourceFile, listed, source_files

HEAVY = {"ray", "torch", "vllm", "transformers", "peft", "trl"}
QUICK = ("architecture", "unit", "contract", "property")
SLICES = (
    *("tenancy", "catalog", "limits", "gateway", "files", "finetune", "responses", "evals", "webhooks", "batches"),
    "clients",
)


def test_the_import_contracts_hold() -> None:
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_slices_do_not_import_each_other() -> None:
    """Also those that the import contracts do not name yet, and packages that are no slice of `tokenyard`."""
    owners = [f"tokenyard.{name}" for name in SLICES]
    owners += ["tokenyard_billing", "tokenyard_dashboard", "tokenyard_deployments"]
    allowed = {("tokenyard_dashboard", "tokenyard.clients")}
    found = [
        f"{file.name}: {name}"
        for here in owners
        for file in source_files()
        if _inside(file.module, here)
        for name in file.imports()
        for there in owners
        if here != there and (here, there) not in allowed and _inside(name, there)
    ]
    assert not found, listed(found)


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = {file.module: file for file in source_files()}
    assert _circle({module: _known(file, files) - {module} for module, file in files.items()}) is None


def test_no_rooms_import_each_other_in_a_circle() -> None:
    """A room is a folder below a package. A file beside the rooms is one of its own."""
    files = {file.module: file for file in source_files()}
    arrows: dict[str, set[str]] = {}
    for module, file in files.items():
        if file.path.name == "__init__.py":
            continue
        room = _room(file)
        arrows.setdefault(room, set()).update(_room(files[name]) for name in _known(file, files) if name != module)
    assert _circle({room: others - {room} for room, others in arrows.items()}) is None


def test_only_deployments_imports_the_model_libraries() -> None:
    found = [
        f"{file.name}: {name}"
        for file in source_files()
        if "tokenyard_deployments" not in file.path.parts
        for name in file.imports()
        if name.split(".")[0] in HEAVY
    ]
    assert not found, listed(found)


def test_only_its_own_file_imports_the_package_of_a_payment_provider() -> None:
    found = [
        f"{file.name}: {name}"
        for file in source_files()
        if file.path.name != "stripe_provider.py"
        for name in file.imports()
        if name.split(".")[0] == "stripe"
    ]
    assert not found, listed(found)


def test_quick_tests_do_not_import_the_model_libraries() -> None:
    """Each process of pytest would take many seconds for it: what needs them stands in `tests/integration`."""
    files = {file.module: file for file in source_files()}
    files |= {file.module.removeprefix("tests."): file for file in _test_files("support")}
    found = [
        f"{file.name}: {name}"
        for tier in QUICK
        for file in _test_files(tier)
        for name in _imported_with(file, files)
        if name.split(".")[0] in HEAVY
    ]
    assert not found, listed(found)


@pytest.mark.parametrize("process", ["gateway", "worker", "dashboard"])
def test_a_process_starts_without_the_model_libraries(process: str) -> None:
    code = (
        f"import sys\nfor name in {sorted(HEAVY)!r}: sys.modules[name] = None\nimport tokenyard.bootstrap.{process}\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def _test_files(tier: str) -> list[SourceFile]:
    return [SourceFile(path, "tests") for path in sorted((ROOT / "tests" / tier).rglob("*.py"))]


def _imported_with(file: SourceFile, files: dict[str, SourceFile]) -> set[str]:
    """Return what is imported together with a file, by itself or by one of `files`."""
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        new = set(waiting.pop().imports(first=True)) - seen
        seen |= new
        waiting += [files[name] for name in new if name in files]
    return seen


def _inside(module: str, owner: str) -> bool:
    return module == owner or module.startswith(f"{owner}.")


def _known(file: SourceFile, files: dict[str, SourceFile]) -> set[str]:
    return {name for name in file.imports() if name in files and files[name].path.name != "__init__.py"}


def _room(file: SourceFile) -> str:
    return ".".join(file.module.split(".")[:2])


def _circle(arrows: dict[str, set[str]]) -> str | None:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return None
