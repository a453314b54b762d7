"""Base and tuned model answer the same questions through the gateway, as requests of the job's key."""

import json

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from support.servers.whole_stack import MODEL, Stack, eventually
from tokenyard.core.evaluation.general_questions import general_questions
from tokenyard.settings import shipped

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
ROWS = 4


def test_a_job_leaves_what_both_models_answered(stack: Stack) -> None:
    organization, client = stack.tenant("evaluated")
    tour = shipped("deployments/recipes/tour")
    training, validation = (
        client.files.create(file=tour / name, purpose="fine-tune").id for name in ("train.jsonl", "valid.jsonl")
    )
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=training,
        validation_file=validation,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
        extra_body={"evaluation": {"rows": ROWS, "general": True}, "callable_checkpoints": 2},
    )

    def after_its_end() -> FineTuningJob | None:
        found = client.fine_tuning.jobs.retrieve(job.id)
        # The models are asked once the job has succeeded, and the second file comes after that.
        return found if found.status == "failed" or len(found.result_files) == 2 else None

    ended: FineTuningJob = eventually(after_its_end, limit_s=600)
    assert ended.status == "succeeded", ended.error
    files = {client.files.retrieve(file).filename: file for file in ended.result_files}
    found = json.loads(client.files.content(files["evaluation.json"]).read())
    assert found["fine_tuned_model"] == ended.fine_tuned_model
    assert found["held_out"]["tuned"]["loss"] < found["held_out"]["base"]["loss"]
    rows, general = found["answers"], found["general"]
    assert (rows["asked"], rows["reason"], rows["base"]["rows"], rows["tuned"]["rows"]) == (ROWS, None, ROWS, ROWS)
    assert rows["tuned"]["f1"] > rows["base"]["f1"]
    assert all(sample["base"] and sample["tuned"] for sample in rows["samples"])
    assert (general["asked"], general["answered"]) == (len(general_questions()),) * 2
    assert general["base_right"] > len(general_questions()) // 4, "the base knows some of them"

    def requests() -> dict[str, int]:
        usage = stack.admin("GET", f"/admin/organizations/{organization}/usage")["data"]
        return {one["model"]: one["requests"] for one in usage if one["requests"]}

    each = ROWS + len(general_questions())
    assert ended.fine_tuned_model
    first = _call_checkpoints(client, job.id, ended.fine_tuned_model)
    wanted = {MODEL: each, ended.fine_tuned_model: each + 1, first: 1}
    eventually(lambda: requests() == wanted)
    invoices = stack.admin("GET", f"/admin/organizations/{organization}/invoices")["data"]
    lines = [line for invoice in invoices for line in invoice["lines"]]
    rates = {line["model"]: line["rate"] for line in lines if line["kind"] == "output"}
    assert rates[first] == rates[ended.fine_tuned_model] != rates[MODEL]
    assert stack.command("reconcile").returncode == 0


def _call_checkpoints(client: OpenAI, job: str, model: str) -> str:
    """Ask both epochs' checkpoints; return the name of the first, since the last one is the model."""

    def both() -> list[FineTuningJobCheckpoint] | None:
        listed = client.fine_tuning.jobs.checkpoints.list(job).data
        return listed if all(one.to_dict().get("callable") for one in listed) else None

    listed: list[FineTuningJobCheckpoint] = eventually(both)
    last, first = listed
    for checkpoint, answers in ((last, model), (first, first.fine_tuned_model_checkpoint)):
        reply = client.chat.completions.create(
            model=checkpoint.fine_tuned_model_checkpoint, messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
        assert reply.model == answers
    return first.fine_tuned_model_checkpoint
