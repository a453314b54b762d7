"""A data folder's secret, and the environment its processes get."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tokenyard.settings import Settings
from tokenyard.stack.installation import StackFailed, child_environment, ensure_ray_token, load_settings


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENYARD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("TOKENYARD_SECRET", raising=False)


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    assert load_settings().secret.get_secret_value() == ""
    first = load_settings(create_secret=True)
    assert len(first.secret.get_secret_value()) >= 32
    assert stat.S_IMODE((tmp_path / "data" / "secrets.env").stat().st_mode) == 0o600
    assert load_settings(create_secret=True).secret == first.secret == load_settings().secret


def test_a_secret_from_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    load_settings(create_secret=True)
    monkeypatch.setenv("TOKENYARD_SECRET", "x" * 40)
    assert load_settings(create_secret=True).secret.get_secret_value() == "x" * 40


def test_a_child_reads_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        models=("one", "two"),
        secret="s" * 40,
        gateway_port=18000,
        ray_url="http://ray:1",
        server_keys={"theirs": "sk-1"},
        plain_http_servers=("10.0.0.5",),
    )
    code = (
        "from tokenyard.settings import Settings; made = Settings(); print(made.model_dump_json());"
        "print(made.server_keys['theirs'].get_secret_value())"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(settings, {}), capture_output=True, text=True, check=True
    )
    shown, key = child.stdout.splitlines()
    seen = Settings.model_validate_json(shown)
    assert (key, "sk-1" in shown, seen.plain_http_servers) == ("sk-1", False, ("10.0.0.5",))
    assert seen.models == ("one", "two")
    assert (seen.gateway_port, seen.ray_url) == (18000, "http://ray:1")
    assert seen.data_dir == settings.data_dir
    assert seen.database_url == settings.effective_database_url
    assert seen.redis_url == settings.effective_redis_url
    assert seen.effective_models_path == settings.effective_models_path


def test_jobs_find_our_commands_first(tmp_path: Path) -> None:
    environment = child_environment(Settings(data_dir=tmp_path), {"PATH": "/usr/bin"})
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    again = child_environment(Settings(data_dir=tmp_path), environment)
    assert again["PATH"] == environment["PATH"]


def test_rays_token_is_kept_where_there_is_one(tmp_path: Path) -> None:
    settings = Settings(ray_token_file=tmp_path / "ray" / "auth_token")
    ensure_ray_token(settings)
    token = settings.ray_token_file.read_text()
    assert len(token) >= 32
    assert stat.S_IMODE(settings.ray_token_file.stat().st_mode) == 0o600
    ensure_ray_token(settings)
    assert settings.ray_token_file.read_text() == token


@pytest.mark.parametrize("text", ["one,two", '["one", "two"]', " one , two "])
def test_models_are_a_list_of_names(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENYARD_MODELS", text)
    assert load_settings().models == ("one", "two")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TOKENYARD_GATEWAY_PORT", "abc", "TOKENYARD_GATEWAY_PORT: Input should be a valid integer"),
        ("TOKENYARD_MODELS", "[oops", "TOKENYARD_MODELS"),
        ("TOKENYARD_SECRET", "too short", "TOKENYARD_SECRET has 9 characters; it needs 32"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StackFailed, match=message):
        load_settings()
