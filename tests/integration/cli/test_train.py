"""`tokenyard-train` as a process, against the real control plane on a socket; only the cluster trains nothing."""

import signal
from typing import Any

import pytest

from support.finetune.control_plane import ControlPlane
from support.finetune.rows import preference_rows, rows
from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.clients.platform_api.operator_api import OperatorApi


async def test_the_operator_trains_for_an_organization_and_leaves_no_key(plane: ControlPlane) -> None:
    command = await plane.train(
        *("--organization", "acme", "--suffix", "sky", "--validation-file", str(plane.dataset)),
        *("--n-epochs", "2", "--batch-size", "3", "--learning-rate-multiplier", "1.5", "--seed", "5"),
        "--publish-if-worse",
        TOKENYARD_ADMIN_KEY=plane.admin_key,
    )
    submission = await plane.submitted()
    spec = plane.stack.cluster.specs[submission]
    assert (spec.organization, spec.seed) == (plane.organization, 5)
    wanted = spec.hyperparameters
    assert (wanted.n_epochs, wanted.batch_size, wanted.learning_rate_multiplier) == (2, 3, 1.5)
    assert spec.validation_url is not None
    assert (await plane.stack.job(spec.job)).publish_if_worse
    await plane.stack.cluster.tell(submission, *[f"Step {step}/150" for step in range(1, 151)])
    await plane.stack.cluster.succeed(submission, tokens=600)
    output = await plane.output_of(command)
    assert command.returncode == 0, output
    told = [line.rpartition("  ")[2] for line in output.splitlines() if "Step " in line]
    assert told == [f"Step {step}/150" for step in range(1, 151)]  # all of them, over several pages, in order
    assert "Succeeded: ft:small-model:acme:sky:" in output
    assert "(600 trained tokens)" in output
    async with ApiConnection(plane.url) as connection:
        left = [key async for key in OperatorApi(connection, plane.admin_key).keys("acme")]
    assert [key.name for key in left if key.revoked_at is None] == ["first"]


async def test_a_tenant_hears_why_its_job_failed(plane: ControlPlane) -> None:
    command = await plane.train(TOKENYARD_API_KEY=plane.tenant_key)
    submission = await plane.submitted()
    await plane.stack.cluster.fail(submission, "training_diverged", "The loss is not a number any more.")
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert output.splitlines()[-1] == "The job failed: The loss is not a number any more."


async def test_a_sweep_is_followed_and_its_best_model_is_named(plane: ControlPlane) -> None:
    more = ("--validation-file", str(plane.dataset), "--sweep", "learning_rate_multiplier=1,4")
    command = await plane.train(*more, TOKENYARD_API_KEY=plane.tenant_key)
    cluster = plane.stack.cluster
    for number, loss in ((1, 1.5), (2, 1.0)):

        async def trains(number: int = number) -> bool:
            return len(cluster.submissions) == number

        await plane.until(trains, "the trial is submitted")
        submission = cluster.submissions[-1]
        await cluster.tell(submission, f"Step of {number}")
        await cluster.succeed(submission, tokens=50, metrics={"base_valid_loss": 2.0, "valid_loss": loss})
    lines = (await plane.output_of(command)).splitlines()
    assert command.returncode == 0, lines
    told = [line for line in lines if "Step of" in line]
    assert sorted((line.split()[0], line.split()[-1]) for line in told) == [("1", "1"), ("2", "2")]
    assert lines[-1].startswith("Succeeded: ft:small-model:acme:")
    assert "of trial 2" in lines[-1]


async def test_a_signal_cancels_a_sweep(plane: ControlPlane) -> None:
    more = ("--validation-file", str(plane.dataset), "--sweep", "n_epochs=1,2")
    command = await plane.train(*more, TOKENYARD_API_KEY=plane.tenant_key)
    await plane.submitted()
    command.send_signal(signal.SIGTERM)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert output.splitlines()[-1] == "The sweep was cancelled."


async def test_preferences_and_any_other_setting(plane: ControlPlane) -> None:
    plane.dataset.write_bytes(preference_rows(12))
    more = ("beta=0.5", "lr_scheduler_type=cosine", 'target_modules=["q_proj", "v_proj"]')
    given = [part for one in more for part in ("--hyperparameter", one)]
    command = await plane.train("--method", "dpo", "--n-epochs", "2", *given, TOKENYARD_API_KEY=plane.tenant_key)
    submission = await plane.submitted()
    spec = plane.stack.cluster.specs[submission]
    assert (spec.method, spec.lora.target_modules) == ("dpo", ("q_proj", "v_proj"))
    wanted = spec.hyperparameters
    assert (wanted.n_epochs, wanted.beta, wanted.lr_scheduler_type) == (2, 0.5, "cosine")
    await plane.stack.cluster.succeed(submission, tokens=12)
    assert "Succeeded" in await plane.output_of(command)


async def test_a_setting_that_is_not_one_is_refused_by_name(plane: ControlPlane) -> None:
    for given, said in (("rank", "is not NAME=VALUE"), ("rank=99", "The rank must be 1 to 16")):
        command = await plane.train("--hyperparameter", given, TOKENYARD_API_KEY=plane.tenant_key)
        assert said in await plane.output_of(command)
        assert command.returncode != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_cancels_the_job(plane: ControlPlane, number: signal.Signals) -> None:
    command = await plane.train(TOKENYARD_API_KEY=plane.tenant_key)
    job = await plane.only_job()
    command.send_signal(number)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert output.splitlines()[-1] == "The job was cancelled."
    assert (await plane.stack.job(job.id)).status == "cancelled"


async def test_detached_a_signal_leaves_the_job_alone(plane: ControlPlane) -> None:
    command = await plane.train("--detach", TOKENYARD_API_KEY=plane.tenant_key)
    job = await plane.only_job()
    command.send_signal(signal.SIGTERM)
    output = await plane.output_of(command)
    assert command.returncode == 130
    assert f"job {job.id} goes on" in output
    assert (await plane.stack.job(job.id)).status == "running"


async def test_an_uploaded_file_by_its_id(plane: ControlPlane) -> None:
    first = await plane.train("--detach", TOKENYARD_API_KEY=plane.tenant_key)
    job = await plane.only_job()
    first.send_signal(signal.SIGTERM)
    await plane.output_of(first)
    second = await plane.train(
        "--training-file", job.training_file, "--suffix", "Not allowed!", TOKENYARD_API_KEY=plane.tenant_key
    )
    output = await plane.output_of(second)
    assert second.returncode == 1
    assert output.strip() == "The suffix must be 1 to 64 of a-z, 0-9 and '-', not '-' first."


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "Set TOKENYARD_API_KEY, or as the operator TOKENYARD_ADMIN_KEY with --organization."),
        (("--organization", "acme"), {"TOKENYARD_API_KEY": "ty-wrong"}, "API key"),
        (("--organization", "nobody"), {"TOKENYARD_ADMIN_KEY": "admin"}, "nobody"),
        (("--training-file", "no/such/file"), {"TOKENYARD_API_KEY": "tenant"}, "There is no file no/such/file"),
        (("--base-url", "http://127.0.0.1:9"), {"TOKENYARD_API_KEY": "tenant"}, "http://127.0.0.1:9"),
    ],
)
async def test_what_is_wrong_is_one_clear_line(
    plane: ControlPlane, arguments: tuple[str, ...], environment: dict[str, Any], message: str
) -> None:
    real = {"admin": plane.admin_key, "tenant": plane.tenant_key}
    given = {name: real.get(value, value) for name, value in environment.items()}
    command = await plane.train(*arguments, **given)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert message in output
    assert len(output.strip().splitlines()) == 1, output


async def test_a_bad_line_is_named(plane: ControlPlane) -> None:
    plane.dataset.write_bytes(rows(12) + b'{"messages": 1}\n')
    command = await plane.train(TOKENYARD_API_KEY=plane.tenant_key)
    output = await plane.output_of(command)
    assert command.returncode == 1
    assert "line 13" in output
