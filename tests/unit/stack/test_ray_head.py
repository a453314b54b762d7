"""How the local Ray is started."""

import stat
import tempfile
from pathlib import Path

import pytest

from tokenyard.settings import Settings
from tokenyard.stack.ray_head import prepare_session_folder, ray_part, session_folder

SECRET = "s" * 40


def test_replicas_and_training_get_neither_the_master_secret_nor_sql(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secret=SECRET)
    environment = {"TOKENYARD_SECRET": SECRET, "TOKENYARD_DATABASE_URL": "x", "TOKENYARD_REDIS_URL": "redis://r"}
    part = ray_part(settings, environment | {"TOKENYARD_SERVER_KEYS": '{"theirs": "sk-1"}'})
    assert part.environment["TOKENYARD_REDIS_URL"] == "redis://r"
    assert part.environment["RAY_AUTH_MODE"] == "token"
    assert SECRET not in part.environment.values()
    assert not {"TOKENYARD_DATABASE_URL", "TOKENYARD_SERVER_KEYS"}.intersection(part.environment)


def test_everything_listens_on_this_machine_only(tmp_path: Path) -> None:
    argv = ray_part(Settings(data_dir=tmp_path, secret=SECRET), {}).argv
    for option in ("--node-ip-address", "--dashboard-host"):
        assert argv[argv.index(option) + 1] == "127.0.0.1"


def test_the_session_folder_is_ours_alone_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(str(session_folder(tmp_path / ("deep/" * 40)))) < 60
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = session_folder(tmp_path)
    sessions = [folder / "r" / f"session_2026-11-2{day}_06-00-00_000000_1" for day in range(5)]
    for session in sessions:
        session.mkdir(parents=True)
    (folder / "r" / "session_latest").symlink_to(sessions[-1])
    folder.chmod(0o777)
    prepare_session_folder(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [session.exists() for session in sessions] == [False, False, False, True, True]
