"""The command line against a real gateway and worker over SQLite and Valkey, without replicas."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support.fakes.rate_cards import rate_card, stated, write_file
from support.servers.free_ports import free_port
from support.servers.installation import running_installation
from tokenyard.cli.main import app
from tokenyard.settings import Settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A running gateway; the environment of this process leads to it."""
    with running_installation(tmp_path_factory.mktemp("installation")) as installed:
        yield installed


def run(*command: str, expect: int = 0) -> Result:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == expect, f"{result.output}{result.stderr}{result.exception!r}"
    return result


def answer(*command: str) -> Any:
    return json.loads(run(*command, "--json").output)


@pytest.fixture(scope="module")
def acme(settings: Settings) -> dict[str, Any]:
    made: dict[str, Any] = answer("org", "create", "Acme Corp.", "--weight", "3")
    return made


def test_organizations(acme: dict[str, Any]) -> None:
    assert (acme["slug"], acme["weight"]) == ("acme-corp", 3)
    assert "acme-corp" in run("org", "list").output
    assert answer("org", "show", acme["id"]) == answer("org", "show", "acme-corp")
    assert "weight: 3" in run("org", "show", "acme-corp").output


def test_limits_of_organizations_and_projects(acme: dict[str, Any]) -> None:
    changed = answer("org", "limits", "acme-corp", "--rpm", "60", "--monthly-spend", "25")
    assert (changed["requests_per_minute"], changed["monthly_spend_dollars"]) == (60, "25.00")
    assert answer("org", "limits", "acme-corp") == changed
    assert answer("org", "limits", "acme-corp", "--rpm", "none")["requests_per_minute"] is None
    assert answer("org", "limits", "acme-corp")["monthly_spend_dollars"] == "25.00"

    project = answer("project", "create", "acme-corp", "Website")
    assert {found["name"] for found in answer("project", "list", "acme-corp")} == {"Default project", "Website"}
    assert answer("project", "limits", "acme-corp", "Website", "--concurrency", "4")["concurrency"] == 4
    assert answer("project", "limits", "acme-corp", project["id"])["concurrency"] == 4
    assert "'Default project', 'Website'" in run("project", "limits", "acme-corp", "Webseite", expect=1).stderr


def test_plans(acme: dict[str, Any]) -> None:
    made = answer("plan", "create", "pro", "--weight", "4", "--rpm", "60", "--model", "small", "--model", "ft:*")
    assert (made["weight"], made["limits"]["requests_per_minute"], made["models"]) == (4, 60, ["small", "ft:*"])
    assert answer("plan", "show", "pro") == made
    changed = answer("plan", "change", "pro", "--rpm", "none", "--tpm", "5")
    assert (changed["limits"]["requests_per_minute"], changed["limits"]["tokens_per_minute"]) == (None, 5)
    assert (changed["weight"], changed["models"]) == (4, ["small", "ft:*"])
    assert answer("plan", "change", "pro", "--model", "*", "--weight", "2")["models"] == ["*"]
    terms = ("--price-multiplier", "0.80", "--service-tier", "priority=8:2", "--service-tier", "flex=1")
    priced = answer("plan", "change", "pro", *terms)
    assert (priced["price_multiplier"], priced["weight"]) == ("0.8", 2)
    granted = {"priority": {"weight": 8, "price_multiplier": "2"}, "flex": {"weight": 1, "price_multiplier": None}}
    assert priced["service_tiers"] == granted
    assert list(answer("plan", "change", "pro", "--service-tier", "flex=none")["service_tiers"]) == ["priority"]
    assert "like priority=8" in run("plan", "change", "pro", "--service-tier", "priority", expect=1).stderr
    assert "0.8" in run("plan", "list").output
    assert answer("plan", "create", "half", "--price-multiplier", "0.5", *terms[2:])["service_tiers"] == granted
    shared = answer("plan", "change", "pro", "--local-share", "20:5")["local_share"]
    assert shared == {"percent": 20, "spend_dollars": "5.00"}
    assert answer("plan", "change", "pro", "--local-share", "none")["local_share"] is None
    bounded = answer("plan", "change", "pro", "--training-limit", "running=2", "--training-limit", "unfinished=none")
    assert bounded["training"] == {"running": 2, "unfinished": None, "tokens_per_day": None}
    assert "like running=2" in run("plan", "change", "pro", "--training-limit", "walking=2", expect=1).stderr
    assert "like 20:5.00" in run("plan", "change", "pro", "--local-share", "20", expect=1).stderr
    asked = answer("plan", "change", "pro", "--monthly-fee", "20", "--monthly-minimum", "99.5")
    assert (asked["monthly_fee_dollars"], asked["monthly_minimum_dollars"]) == ("20.00", "99.50")
    assert answer("plan", "change", "pro", "--monthly-fee", "0")["monthly_minimum_dollars"] == "99.50"
    assert "99.50" in run("plan", "list").output
    assert answer("org", "plan", "acme-corp", "pro")["plan_id"] == made["id"]
    assert "pro" in run("plan", "list").output
    assert "are on the plan" in run("plan", "delete", "pro", expect=1).stderr
    assert answer("org", "plan", "acme-corp", "none")["plan_id"] is None
    assert "is deleted" in run("plan", "delete", "pro").output


def test_keys_with_rules(acme: dict[str, Any]) -> None:
    made = answer("key", "create", "acme-corp", "--scope", "inference", "--address", "10.0.0.0/8", "--model", "small")
    assert (made["scopes"], made["addresses"], made["models"]) == (["inference"], ["10.0.0.0/8"], ["small"])
    assert "scopes" in run("key", "create", "acme-corp", "--scope", "nothing", expect=1).stderr
    assert "tenants' keys" in run("key", "create", "--operator", "--scope", "files", expect=1).stderr


def test_keys_are_shown_once_and_end_when_revoked(acme: dict[str, Any], settings: Settings) -> None:
    made = answer("key", "create", "acme-corp", "--name", "ci", "--expires-in-days", "2")
    assert _models(settings, made["value"]) == 200
    listed = run("key", "list", "acme-corp").output
    assert made["id"] in listed
    assert made["value"] not in listed
    assert "is revoked" in run("key", "revoke", made["id"]).output
    assert _models(settings, made["value"]) == 401
    assert "No organization has a key" in run("key", "revoke", "key_nothing", expect=1).stderr


def test_limits_of_keys(acme: dict[str, Any]) -> None:
    made = answer("key", "create", "acme-corp", "--name", "slow")
    assert set(answer("key", "limits", made["id"]).values()) == {None}
    changed = answer("key", "limits", made["id"], "--tpm", "1000", "--monthly-spend", "2")
    assert (changed["tokens_per_minute"], changed["monthly_spend_dollars"]) == (1000, "2.00")
    changed = answer("key", "limits", made["id"], "--tpm", "none", "--organization", "acme-corp")
    assert (changed["tokens_per_minute"], changed["monthly_spend_dollars"]) == (None, "2.00")
    assert answer("key", "limits", made["id"]) == changed
    run("key", "revoke", made["id"])
    ended = run("key", "limits", made["id"], "--tpm", "5", "--organization", "acme-corp", expect=1)
    assert "is revoked" in ended.stderr


def test_an_operators_key_stands_in_for_the_database(acme: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = answer("key", "create", "--operator", "--name", "laptop")
    assert any(key["id"] == made["id"] for key in answer("key", "list", "--operator"))
    monkeypatch.setenv("TOKENYARD_DATA_DIR", "/nonexistent")
    assert "run this on the machine" in run("org", "list", expect=1).stderr
    assert "acme-corp" in run("org", "list", "--admin-key", made["value"]).output
    monkeypatch.setenv("TOKENYARD_ADMIN_KEY", made["value"])
    assert "acme-corp" in run("org", "list").output


def test_the_commands_own_keys_do_not_pile_up(acme: dict[str, Any]) -> None:
    names = [[key["name"] for key in answer("key", "list", "--operator")].count("command line") for _ in range(3)]
    assert names[0] == names[1] == names[2]


def _models(settings: Settings, key: str) -> int:
    request = urllib.request.Request(
        f"{settings.effective_api_url}/v1/models", headers={"Authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_credit(acme: dict[str, Any]) -> None:
    command = ("credit", "grant", "acme-corp", "2.50", "--reason", "welcome", "--idempotency-key", "once")
    assert "$2.50 more credit" in run(*command).output
    assert answer(*command)["amount"] == 2_500_000_000
    granted = [grant["reason"] for grant in answer("credit", "list", "acme-corp")]
    assert sorted(granted) == ["Opening credit", "welcome"]
    assert "is no amount" in run("credit", "grant", "acme-corp", "much", "--reason", "x", expect=1).stderr


def test_an_installation_without_usage(acme: dict[str, Any]) -> None:
    assert "No usage yet" in run("usage", "acme-corp").output
    assert "no invoice" in run("invoice", "acme-corp", expect=1).stderr
    assert run("jobs", "list").output == "No jobs.\n"
    assert answer("jobs", "list", "--organization", "acme-corp") == []
    assert answer("reconcile")["ok"] is True
    models = answer("models", "list")
    assert [model["id"] for model in models] == ["smollm2-135m-instruct"]


def test_time_zones_periods_and_the_books(acme: dict[str, Any]) -> None:
    assert answer("org", "time-zone", "acme-corp")["time_zone"] == "UTC"
    assert answer("org", "time-zone", "acme-corp", "Asia/Tokyo")["next_time_zone"] == "Asia/Tokyo"
    assert "No such time zone" in run("org", "time-zone", "acme-corp", "Mars", expect=1).stderr
    assert "Nothing was charged yet" in run("org", "periods", "acme-corp").output
    assert answer("invoices", "list", "--state", "past_due") == []
    assert answer("books")["total"] == 0
    assert "granted" in run("books").output
    for command in (("pay", "--reference", "bank"), ("void", "--reason", "x"), ("write-off", "--reason", "x")):
        assert "No such invoice" in run("invoices", command[0], "inv_none", *command[1:], expect=4).stderr


def test_who_bills_whom(acme: dict[str, Any], tmp_path: Path) -> None:
    assert answer("issuer")["details"] is None
    assert answer("issuer", "--set", "legal_name=Tokenhof GmbH", "--set", "country=DE")["details"]["country"] == "DE"
    named = answer("org", "billing-details", "acme-corp", "--set", "legal_name=Acme", "--set", "country=GB")
    assert answer("org", "billing-details", "acme-corp") == named
    assert "ISO 3166-1" in run("issuer", "--set", "country=Mars", expect=1).stderr
    file = str(tmp_path / "x.pdf")
    assert "No such invoice" in run("invoices", "pdf", "inv_none", "-o", file, expect=4).stderr


def test_corrections(acme: dict[str, Any]) -> None:
    apply = ("corrections", "apply", "acme-corp")
    assert "Nothing would change" in run(*apply, "--period", "2026-01", "--preview").output
    assert answer(*apply, "--period", "2026-01", "--card", "2026-01-01", "--preview")["charges"] == 0
    assert "Say why" in run(*apply, "--period", "2026-01", expect=1).stderr
    assert "Nothing would change" in run(*apply, "--period", "2026-01", "--reason", "x", expect=1).stderr
    assert "Say which charges" in run(*apply, "--model", "m", "--reason", "x", expect=1).stderr
    assert answer("corrections", "list", "--organization", "acme-corp") == []
    assert answer("credit-notes", "list") == []
    assert "No such credit note" in run("credit-notes", "pdf", "cn_none", expect=4).stderr


def test_payments_and_dunning(acme: dict[str, Any]) -> None:
    assert answer("payments", "list", "--organization", "acme-corp") == []
    for command in ("automatic", "stop-automatic"):
        assert "No automatic top-up is set" in run("payments", command, "acme-corp", expect=4).stderr
    assert answer("dunning", "list") == []
    paused = ("dunning", "pause", "acme-corp", "--until", "2099-01-01", "--reason", "they asked")
    assert run(*paused).output == "acme-corp is dunned again from 2099-01-01 00:00:00 UTC on.\n"
    stated = answer("dunning", "exempt", "acme-corp", "--reason", "a friend")
    assert (stated["exempt"], stated["paused_until_ms"], stated["reason"]) == (True, 0, "a friend")
    assert not answer("dunning", "resume", "acme-corp", "--reason", "a friend no more")["exempt"]
    assert run("dunning", "exempt", "no-such-one", "--reason", "x", expect=4).stderr


def test_taxes(acme: dict[str, Any]) -> None:
    assert run("tax", "rates", "list").output == "None.\n"
    added = run("tax", "rates", "add", "US-CA", "7.25", "--name", "Sales tax", "--from", "2026-01-01").output
    assert added == "Sales tax of US-CA is 7.25 % on top from 2026-01-01 00:00:00 UTC on.\n"
    assert answer("tax", "rates", "add", "AU", "10", "--name", "GST", "--inclusive")["rate"] == 100_000
    assert [one["jurisdiction"] for one in answer("tax", "rates", "list")] == ["AU", "US-CA"]
    assert "in prices" in run("tax", "rates", "list").output
    assert "four decimals" in run("tax", "rates", "add", "DE", "19.00001", "--name", "VAT", expect=1).stderr
    assert answer("org", "tax", "acme-corp")["jurisdiction"] is None
    assert answer("org", "tax", "acme-corp", "US-CA")["jurisdiction"] == "US-CA"
    exempt = ("org", "tax", "acme-corp", "DE", "--exemption", "reverse_charge")
    assert "needs a reason" in run(*exempt, expect=1).stderr
    assert answer(*exempt, "--reason", "DE123456789")["exemption"] == "reverse_charge"
    assert answer("org", "tax", "acme-corp", "none")["jurisdiction"] is None


def test_prices_are_published_from_a_file(acme: dict[str, Any], tmp_path: Path) -> None:
    start_ms = round(time.time() * 1000) + 86_400_000
    file = str(write_file(tmp_path, stated("next", start_ms)))
    assert "Rate card next is in force from" in run("prices", "publish", file).output
    assert answer("prices", "publish", file)["sha256"] == rate_card("next", start_ms).sha256
    assert [card["version"] for card in answer("prices", "list")] == ["next", "2026-01-01"]
    states = [line.split()[3:5] for line in run("prices", "list").output.splitlines()[1:]]
    assert states == [["to", "come"], ["in", "force"]]
    write_file(tmp_path, stated("next", start_ms, output="9"))
    assert "published with other rates" in run("prices", "publish", file, expect=1).stderr
    hasty = str(write_file(tmp_path, stated("hasty", start_ms - 86_400_000)))
    assert "rate card hasty starts" in run("prices", "publish", hasty, expect=1).stderr
    Path(hasty).write_text("version: hasty")
    assert "hasty.yaml: " in run("prices", "publish", hasty, expect=1).stderr


@pytest.mark.parametrize(
    "command",
    [("jobs", name, "ftjob-none") for name in ("show", "cancel", "pause", "resume", "events")],
    ids=" ".join,
)
def test_an_unknown_job_has_its_own_exit_code(acme: dict[str, Any], command: Sequence[str]) -> None:
    assert "No such job" in run(*command, expect=4).stderr


def test_an_unknown_organization_lists_similar_ones(acme: dict[str, Any]) -> None:
    assert "Similar: acme-corp" in run("org", "show", "acme-crop", expect=1).stderr
    assert "There are:" in run("usage", "zzz", expect=1).stderr


def test_a_gateway_that_does_not_run_is_said_so(acme: dict[str, Any]) -> None:
    unused = f"http://127.0.0.1:{free_port()}"
    failed = run("org", "list", "--url", unused, expect=3)
    assert f"The gateway at {unused} does not answer" in failed.stderr
    assert "tokenyard up" in failed.stderr


def test_doctor_finds_nothing_running_here(acme: dict[str, Any], settings: Settings) -> None:
    found = run("doctor", "--json", expect=1)
    report = json.loads(found.output.partition("\ntokenyard:")[0] if "\ntokenyard:" in found.stdout else found.stdout)
    assert report["process"] is None
    assert report["installed"]["ray"] is not None
    assert any(f"Port {settings.gateway_port}" in problem for problem in report["problems"])


def test_webhooks(settings: Settings, acme: dict[str, Any]) -> None:
    made = _new_endpoint(settings, answer("key", "create", "acme-corp")["value"])
    assert "https://example.invalid/hook" in run("webhooks", "list", "acme-corp").output
    *_, event = answer("webhooks", "events", "acme-corp", "--type", "credit.granted")
    assert (event["type"], event["deliveries"]) == ("credit.granted", [])
    shown = run("webhooks", "show", "acme-corp", event["id"]).output
    assert "Not tried yet." in shown
    assert "is disabled" in run("webhooks", "disable", "acme-corp", made, "--reason", "Too loud.").output
    assert "disabled: Too loud." in run("webhooks", "list", "acme-corp").output
    assert "Enable it first" in run("webhooks", "resend", "acme-corp", event["id"], made, expect=1).stderr
    assert "is enabled" in run("webhooks", "enable", "acme-corp", made).output
    resent = answer("webhooks", "resend", "acme-corp", event["id"], made)
    assert [one["state"] for one in resent["deliveries"]] == ["waiting"]
    others = len(answer("webhooks", "events", "acme-corp")) - 1
    assert run("webhooks", "replay", "acme-corp", made, "--since", "2026-01-01").output.startswith(f"{others} events")
    assert f"{made} waiting" in run("webhooks", "events", "acme-corp", "--state", "waiting").output


def _new_endpoint(settings: Settings, key: str) -> str:
    body = {"name": "Books", "url": "https://example.invalid/hook", "event_types": ["*"]}
    request = urllib.request.Request(
        f"{settings.effective_api_url}/v1/webhook_endpoints",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        return str(json.load(reply)["id"])
