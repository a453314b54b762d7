"""An attempt's folder in an object store: what a trainer leaves there, a next attempt goes on from."""

from pathlib import Path

from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TrainingCheckpoint
from tokenyard_deployments.training.attempt import AttemptFolder


def test_checkpoints_are_kept_and_taken_over(s3_url: str, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, "optimizer.pt"):
        (local / name).write_text(name)
    first = AttemptFolder(f"{s3_url}/jobs/org/job/1")
    first.add_event("Training")
    kept = [
        TrainingCheckpoint(step_number=step, epoch=step, created_at=1, path=f"checkpoints/step-{step}", metrics={})
        for step in (1, 2)
    ]
    for checkpoint in kept:
        first.save_checkpoint(local, checkpoint)
    assert first.checkpoints() == kept

    second = AttemptFolder(f"{s3_url}/jobs/org/job/2")
    second.copy_checkpoints(first)
    assert second.checkpoints() == kept
    second.download(kept[-1].path, tmp_path / "resumed")
    assert (tmp_path / "resumed" / "optimizer.pt").read_text() == "optimizer.pt"
    assert second.read("checkpoints/step-1/optimizer.pt") is None  # only the newest can be gone on from
