"""A served model says what answers are worth while another is trained: its requests are the tenant's, and charged."""

import json

import msgspec
import pytest
from openai.types.fine_tuning import FineTuningJob

from support.servers.whole_stack import MODEL, Stack, eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
ROWS = [{"messages": [{"role": "user", "content": f"Name a thing in a {room}."}]} for room in ("kitchen", "garage")]
GRADER = {
    "type": "score_model",
    "name": "judge",
    "model": MODEL,
    "input": [{"role": "user", "content": "From 0 to 1, how clear is this answer?\n{{ sample.output_text }}"}],
}


def test_a_model_grades_what_another_answers_in_training(stack: Stack) -> None:
    organization, client = stack.tenant("graded")
    content = "\n".join(map(json.dumps, ROWS)).encode()
    file = client.files.create(file=("rows.jsonl", content), purpose="fine-tune")
    settings = {"n_epochs": 2, "batch_size": 2, "num_generations": 2, "max_completion_length": 12}
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": settings}}
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, extra_body={"method": method})

    def ended() -> FineTuningJob | None:
        found = client.fine_tuning.jobs.retrieve(job.id)
        return found if found.status in ("succeeded", "failed") else None

    assert (found := eventually(ended, limit_s=600)).status == "succeeded", found.error
    events = [event.to_dict() for event in client.fine_tuning.jobs.list_events(job.id, limit=100).data]
    steps: list[dict[str, float]] = [msgspec.convert(event["data"], dict) for event in events if event["data"]]
    rewards = [step["train_reward"] for step in steps if "train_reward" in step]
    assert len(rewards) == 2
    assert all(0 <= reward <= 1 for reward in rewards)

    def asked() -> int:
        usage = stack.admin("GET", f"/admin/organizations/{organization}/usage")["data"]
        return sum(one["requests"] for one in usage if one["model"] == MODEL)

    most = 2 * 2 * 2  # of two rows two answers in each of two steps; the same answer is asked about once
    assert 0 < eventually(asked) <= most
    assert stack.command("reconcile").returncode == 0
