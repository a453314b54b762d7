"""An attempt's folder in an object store: what a trainer leaves there, a next attempt goes on from."""

from pathlib import Path

from tokenyard.core.training import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    RESUME_FOLDER,
    ResumePoint,
    TrainingCheckpoint,
    step_folder,
)
from tokenyard_deployments.training.attempt import AttemptFolder


def test_checkpoints_and_the_last_resume_point_are_kept(s3_url: str, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, "optimizer.pt", "rng_state_0.pth"):
        (local / name).write_text(name)
    folder = AttemptFolder(f"{s3_url}/jobs/org/job/1")
    folder.add_event("Training")
    kept = [
        TrainingCheckpoint(step_number=step, epoch=step, created_at=1, path=f"checkpoints/step-{step}", metrics={})
        for step in (1, 2)
    ]
    for checkpoint in kept:
        folder.save_checkpoint(local, checkpoint)
    points = [ResumePoint(step_number=step, total_steps=9, trained_tokens=9, created_at=1) for step in (1, 2)]
    for point in points:
        folder.save_resume_point(local, point)
    assert folder.checkpoints() == kept
    assert folder.read("checkpoints/step-2/optimizer.pt") is None

    again = AttemptFolder(f"{s3_url}/jobs/org/job/1")
    assert again.resume_point() == points[-1]
    again.download(step_folder(RESUME_FOLDER, 2), tmp_path / "resumed")
    assert (tmp_path / "resumed" / "rng_state_0.pth").read_text() == "rng_state_0.pth"
    assert again.read(f"{step_folder(RESUME_FOLDER, 1)}/optimizer.pt") is None

    assert not again.is_to_pause()
    folder.write("pause", b"{}")
    assert again.is_to_pause()
