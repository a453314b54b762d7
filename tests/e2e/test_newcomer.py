"""What a newcomer does: paste the two snippets, take the tour, look at the dashboard, break in, stop."""

import ipaddress
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import openai
import psutil
import pytest
from playwright.sync_api import Page, expect

from support.servers.free_ports import free_port
from support.servers.whole_stack import BIN, MODEL, Stack, eventually

if TYPE_CHECKING:
    from e2e.conftest import FinishedTour

pytestmark = pytest.mark.timeout(900)


def test_the_printed_curl_works_as_pasted(stack: Stack) -> None:
    snippet = re.search(r"^curl .*?\}'$", stack.text, re.DOTALL | re.MULTILINE)
    assert snippet, stack.text
    answer = subprocess.run(["bash", "-c", snippet.group(0)], capture_output=True, text=True, check=True, timeout=120)
    *frames, done = re.findall(r"^data: (.*)$", answer.stdout, re.MULTILINE)
    assert done == "[DONE]"
    choices = [choice for frame in frames for choice in json.loads(frame)["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert "Paris" in text
    assert choices[-1]["finish_reason"] == "stop", text  # it ended by itself, within its bound
    assert len(frames) > 3, "it streams"


def test_the_printed_python_works_as_pasted(stack: Stack) -> None:
    snippet = re.search(r"^from openai import OpenAI$.*?^    print\(.*?$", stack.text, re.DOTALL | re.MULTILINE)
    assert snippet, stack.text
    code = [sys.executable, "-c", snippet.group(0)]
    answer = subprocess.run(code, capture_output=True, text=True, check=True, timeout=120)
    assert "Paris" in answer.stdout
    assert answer.stdout.strip().endswith((".", "!")), answer.stdout  # a whole sentence: it was not cut off


def test_the_keys_are_stored_nowhere(stack: Stack) -> None:
    keys = [stack.printed("Admin key").encode(), stack.printed("API key").encode()]
    files = [Path(folder, name) for folder, _, names in os.walk(stack.data_dir) for name in names]
    assert files
    for file in files:
        if file.is_file() and "models" not in file.parts:
            with suppress(FileNotFoundError):  # the platform runs: it removes what it no longer needs
                content = file.read_bytes()
                assert not any(key in content for key in keys), file


def test_the_quickstart_teaches_a_model_and_the_bill_adds_up(tour: "FinishedTour") -> None:
    facts = tour.output.strip().splitlines()[-3:]
    assert all(fact.startswith("yes") for fact in facts), tour.output
    assert "answers as taught" in facts[0]
    assert "the base model does not" in facts[1]
    assert "= sum of lines" in facts[2]
    assert "= quantity x price" in facts[2]


def test_an_operators_ray_job_gives_the_same_kind_of_model_and_bill(stack: Stack) -> None:
    """The second door: `ray job submit ... -- tokenyard-train ...` against Ray itself."""
    organization, client = stack.tenant("second-door")
    training_file = os.path.join(os.path.dirname(__file__), "..", "..", "deployments/recipes/tour/train.jsonl")
    environment = stack.environment | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": os.path.join(stack.environment["HOME"], ".ray", "auth_token"),
    }
    submit = subprocess.run(
        [
            *(str(BIN / "ray"), "job", "submit"),
            *("--address", f"http://127.0.0.1:{stack.environment['TOKENYARD_RAY_DASHBOARD_PORT']}"),
            *("--", "tokenyard-train", "--organization", "second-door", "--model", MODEL, "--suffix", "door"),
            *("--training-file", os.path.abspath(training_file), "--n-epochs", "1", "--base-url", stack.url),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert submit.returncode == 0, submit.stdout + submit.stderr
    (job,) = client.fine_tuning.jobs.list().data
    assert job.status == "succeeded"
    assert job.fine_tuned_model
    assert job.fine_tuned_model.startswith(f"ft:{MODEL}:second-door:door:")
    assert job.fine_tuned_model in submit.stdout
    reply = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "hello"}], max_tokens=4
    )
    assert reply.model == job.fine_tuned_model

    def training_lines() -> list[dict[str, object]]:
        invoices = stack.admin("GET", f"/admin/organizations/{organization}/invoices")["data"]
        return [line for invoice in invoices for line in invoice["lines"] if line["kind"] == "training"]

    (line,) = eventually(training_lines)
    assert line["quantity"] == job.trained_tokens


def test_another_tenant_sees_nothing_of_a_fine_tuned_model(stack: Stack, tour: "FinishedTour") -> None:
    _, other = stack.tenant("other-tenant")
    job = tour.job
    assert job["fine_tuned_model"]
    for attempt in (
        lambda: other.chat.completions.create(model=job["fine_tuned_model"], messages=[]),
        lambda: other.models.retrieve(job["fine_tuned_model"]),
        lambda: other.fine_tuning.jobs.retrieve(job["id"]),
        lambda: other.files.retrieve(job["training_file"]),
        lambda: other.files.content(job["training_file"]),
    ):
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
            attempt()
    assert [model.id for model in other.models.list()] == [MODEL]


def test_the_dashboard_shows_usage_models_jobs_and_invoices(stack: Stack, tour: "FinishedTour", page: Page) -> None:
    page.goto(stack.printed("Dashboard"))
    page.get_by_label("Admin key").fill(stack.printed("Admin key"))
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#organizations")).to_contain_text("Quickstart")
    assert page.locator("figure rect").count() > 0
    expect(page.locator("#models")).to_contain_text(tour.job["fine_tuned_model"])
    page.get_by_role("link", name="Fine-tuning jobs").click()
    expect(page.locator("#jobs tr", has_text=tour.job["id"])).to_contain_text("succeeded")
    page.get_by_role("link", name="Invoices").click()
    page.locator("#invoices a").first.click()
    expect(page.locator("#total")).to_contain_text("$")


def test_prometheus_reads_gateway_worker_and_engine(stack: Stack) -> None:
    _, client = stack.tenant("watched")
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=4)
    gateway = httpx.get(f"{stack.url}/metrics").text
    assert re.search(r'tokenyard_\w*tokens\w*total\{.*model="smollm2', gateway)
    assert "time_to_first_token" in gateway
    worker = f"http://127.0.0.1:{stack.environment['TOKENYARD_WORKER_PORT']}"
    charged = re.compile(r"tokenyard_ledger_charges_total\{.*\} [1-9]")
    eventually(lambda: charged.search(httpx.get(f"{worker}/metrics").text))
    (found,) = httpx.get(f"{worker}/prometheus/replicas").json()
    url = f"http://{found['targets'][0]}{found['labels']['__metrics_path__']}"
    assert httpx.get(url).status_code == 401
    engine = httpx.get(url, headers={"authorization": f"Bearer {stack.replica_bearer}"}).text
    assert re.search(r"vllm:generation_tokens_total\{.*\} [1-9]", engine)


def test_nothing_listens_beyond_this_machine(stack: Stack) -> None:
    listening = []
    for process in psutil.Process(stack.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            name, connections = process.name(), process.net_connections("inet")
            listening += [(name, one.laddr) for one in connections if one.status == psutil.CONN_LISTEN]
    assert listening
    assert [one for one in listening if not _is_loopback(one[1].ip)] == []


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@pytest.mark.parametrize("command", [("org", "list"), ("models", "list"), ("jobs", "list"), ("doctor",)])
def test_a_command_answers_in_words_and_in_json(stack: Stack, command: tuple[str, ...]) -> None:
    words = stack.command(*command)
    assert words.returncode == 0, words.stdout + words.stderr
    assert words.stdout.strip()
    machine = stack.command(*command, "--json")
    assert machine.returncode == 0, machine.stderr
    json.loads(machine.stdout)


def test_a_second_copy_is_refused_with_a_sentence(stack: Stack) -> None:
    second = stack.command("up", timeout_s=60)
    assert second.returncode != 0
    assert str(stack.process.pid) in second.stdout + second.stderr


def test_a_port_in_use_is_refused_with_a_sentence(stack: Stack, tmp_path: object) -> None:
    environment = stack.environment | {
        "TOKENYARD_DATA_DIR": str(tmp_path),
        **{name: str(free_port()) for name in stack.environment if name.endswith("_PORT")},
        "TOKENYARD_GATEWAY_PORT": stack.environment["TOKENYARD_GATEWAY_PORT"],
    }
    refused = subprocess.run(
        [str(BIN / "tokenyard"), "up"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode != 0
    assert stack.environment["TOKENYARD_GATEWAY_PORT"] in refused.stdout + refused.stderr
