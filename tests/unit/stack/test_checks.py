"""What is looked at before anything starts."""

import socket
from pathlib import Path

import pytest
from pydantic import SecretStr

from tokenyard.settings import Settings
from tokenyard.stack import checks
from tokenyard.stack.checks import (
    Port,
    ports_of,
    problems_with_disk,
    problems_with_memory,
    problems_with_models,
    problems_with_ports,
)


def test_only_the_parts_that_will_run_here_need_ports() -> None:
    whole = {port.owner for port in ports_of(Settings())}
    assert whole == {"gateway", "dashboard", "worker", "valkey", "Ray", "Ray Serve's proxy", "Ray's dashboard"}
    elsewhere = Settings(redis_url="redis://elsewhere/0", ray_url="http://elsewhere:8265")
    assert {port.owner for port in ports_of(elsewhere)} == {"gateway", "dashboard", "worker"}


def test_one_port_for_two_parts_is_a_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    twice = [Port("gateway", "127.0.0.1", number, "A"), Port("worker", "127.0.0.1", number, "B")]
    assert problems_with_ports(twice) == [f"Port {number} is set for both gateway and worker."]


def test_a_taken_port_is_a_problem_that_names_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        [problem] = problems_with_ports([Port("gateway", "127.0.0.1", number, "TOKENYARD_GATEWAY_PORT")])
    assert problem.startswith(f"Port {number}, wanted for gateway, is in use")
    assert "TOKENYARD_GATEWAY_PORT" in problem


def test_more_models_than_memory_is_a_problem() -> None:
    many = Settings(models=tuple(f"model-{number}" for number in range(10_000)))
    [problem] = problems_with_memory(many)
    assert "10000 model(s)" in problem
    assert "TOKENYARD_MODELS" in problem


SOLD = """
version: 2
id: {id}
source: {{kind: server, url: https://models.example/v1, model: theirs, api_key_setting: theirs}}
context_length: 1024
default_max_tokens: 128
template_tokens: 8
template_tokens_per_message: 4
created: 1
"""


def test_models_that_are_served_elsewhere_need_no_memory_and_a_key(tmp_path: Path) -> None:
    names = tuple(f"sold-{number}" for number in range(1000))
    for name in names:
        (tmp_path / f"{name}.yaml").write_text(SOLD.format(id=name))
    settings = Settings(models=names, models_dir=tmp_path, ray_url="")
    needed = checks.RAY_MEMORY_BYTES + checks.OUR_MEMORY_BYTES
    assert checks.available_memory() < needed or problems_with_memory(settings) == []
    [problem] = problems_with_models(settings)
    assert "TOKENYARD_SERVER_KEYS has no key 'theirs'" in problem
    keyed = settings.model_copy(update={"server_keys": {"theirs": SecretStr("sk-1")}})
    assert problems_with_models(keyed) == []


def test_an_embedding_model_needs_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    chat, embedder = "smollm2-135m-instruct", "all-minilm-l6-v2"
    enough = checks.OUR_MEMORY_BYTES + checks.RAY_MEMORY_BYTES + sum(checks.REPLICA_MEMORY_BYTES.values())
    monkeypatch.setattr(checks, "available_memory", lambda: enough)
    assert problems_with_memory(Settings(models=(chat, embedder))) == []
    assert problems_with_memory(Settings(models=(chat, chat)))


def test_a_container_with_less_memory_than_its_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    monkeypatch.setattr(checks, "_CGROUP", tmp_path)
    assert checks.available_memory() <= 2_000_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert checks.available_memory() > 0


def test_disk_is_looked_at_where_the_data_folder_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems_with_disk(tmp_path / "not" / "there" / "yet") == []
    monkeypatch.setattr(checks, "NEEDED_DISK_BYTES", 10**18)
    [problem] = problems_with_disk(tmp_path / "not" / "there" / "yet")
    assert "TOKENYARD_DATA_DIR" in problem
