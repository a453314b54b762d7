"""The Helm chart renders, and what it renders is what Kubernetes and KubeRay accept.

KubeRay's CRDs are taken from the folder that TOKENYARD_KUBERAY_SCHEMAS names.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import fsspec
import helm_python
import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml
from pydantic import SecretStr, ValidationError

from tokenyard.bootstrap.finetuning import training_policy
from tokenyard.cli.cluster_secrets import secret_values
from tokenyard.core.models import ModelSpec
from tokenyard.core.training import TrainingResources
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.settings import Settings
from tokenyard_deployments.serving.app import ServedModel, llm_config, node_resource, serve_config, serve_environment
from tokenyard_deployments.serving.replica_settings import BLOB_URL, METER_SECRET, REDIS_URL, REPLICA_BEARER

ROOT = Path(__file__).parents[3]
CHART = ROOT / "k8s" / "tokenyard"
KUBERNETES = "1.31"
NODE_HEALTH_PATH, NODE_HEALTH_PORT = "/api/healthz", 52365  # Ray's dashboard agent; needs no token
SCHEMAS = Path(os.environ.get("TOKENYARD_KUBERAY_SCHEMAS", "/nonexistent"))

MODEL = yaml.safe_load((CHART.parents[1] / "deployments" / "models" / "smollm2-135m-instruct.yaml").read_text())

CPU_WORKERS: dict[str, Any] = {
    "accelerator": "cpu",
    "image": "tokenyard/tokenyard:cpu",
    "replicas": 2,
    "minReplicas": 1,
    "maxReplicas": 3,
    "resources": {"requests": {"cpu": "4", "memory": "16Gi"}},
}
VALUES: list[dict[str, Any]] = [
    {},
    {
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "api-tls", "annotations": {"a": "b"}},
        "extraEnv": [{"name": "AWS_REGION", "value": "eu-central-1"}],
        "imagePullSecrets": [{"name": "pull"}],
    },
    {
        "ray": {
            "accelerator": "cuda",
            "faultToleranceRedisAddress": "redis:6379",
            "workers": {
                "nodeSelector": {"gpu": "yes"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
            },
        },
        "models": [{**MODEL, "id": "a"}, {**MODEL, "id": "b"}],
        "prices": {"2027-01-01.yaml": "version: '2027-01-01'"},
        "dashboard": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    {
        "ray": {"accelerator": "cuda", "otherWorkers": [CPU_WORKERS]},
        "models": [{**MODEL, "id": "large"}, {**MODEL, "id": "small", "runs_on": "cpu"}],
    },
]
KINDS_OF_VALUES = ["defaults", "ingress", "cuda", "two kinds of workers"]


def render(values: dict[str, Any], name: str = "ty") -> list[dict[str, Any]]:
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values, name=name, namespace="default")
    documents = rendered.values() if isinstance(rendered, dict) else [rendered]
    return [item for text in documents for item in yaml.safe_load_all(text) if item]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return every pod's spec, Ray's too, by a name of its own."""
    found = {
        f"{item['kind']}/{item['metadata']['name']}": item["spec"]["template"]["spec"]
        for item in manifests
        if item["kind"] in {"Deployment", "Job"}
    }
    for service in of_kind(manifests, "RayService"):
        cluster = service["spec"]["rayClusterConfig"]
        found["head"] = cluster["headGroupSpec"]["template"]["spec"]
        found |= {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return found


@pytest.mark.parametrize("values", VALUES, ids=KINDS_OF_VALUES)
def test_every_built_in_kind_is_valid(values: dict[str, Any]) -> None:
    manifests = render(values)
    builtin = [item for item in manifests if not item["apiVersion"].startswith(("ray.io", "monitoring."))]
    assert builtin
    for item in builtin:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


@pytest.mark.parametrize("values", VALUES, ids=KINDS_OF_VALUES)
def test_the_ray_service_is_valid_for_kuberay(values: dict[str, Any]) -> None:
    crd = SCHEMAS / "ray.io_rayservices.yaml"
    if not crd.is_file():
        pytest.skip("set TOKENYARD_KUBERAY_SCHEMAS to the folder of KubeRay's CRDs to check the RayService")
    versions = yaml.load(crd.read_text(), yaml.CSafeLoader)["spec"]["versions"]  # a megabyte
    schema = next(version for version in versions if version["name"] == "v1")["schema"]["openAPIV3Schema"]
    (service,) = of_kind(render(values), "RayService")
    errors = list(jsonschema.Draft4Validator(_closed(schema)).iter_errors(service))
    assert [error.message for error in errors] == []


def _closed(schema: Any) -> Any:
    """Refuse unknown fields, as the API server prunes them silently."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if "properties" in schema and "x-kubernetes-preserve-unknown-fields" not in schema and schema.get("properties"):
        closed.setdefault("additionalProperties", False)
    if "apiVersion" in schema.get("properties", {}):
        closed["properties"]["metadata"] = {"type": "object"}
    return closed


def test_every_model_is_an_application_with_its_own_route() -> None:
    (service,) = of_kind(render(VALUES[2]), "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert [(app["name"], app["route_prefix"]) for app in config["applications"]] == [("a", "/a"), ("b", "/b")]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_serve_gets_what_a_local_platform_gives_it(kind: str) -> None:
    (service,) = of_kind(render({"ray": {"accelerator": kind}}), "RayService")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert _as_served(application) == _as_served(_local_application(MODEL, kind))


def _local_application(model: dict[str, Any], kind: str) -> dict[str, Any]:
    spec = msgspec.convert(model, ModelSpec)
    local = serve_config([ServedModel(spec, f"/models/{spec.id}", kind)], host="0.0.0.0", port=8000)
    (application,) = msgspec.convert(local["applications"], list[dict[str, Any]])
    return application


def _as_served(application: dict[str, Any]) -> dict[str, Any]:
    """Return an application with the description as a replica reads it, where what is not stated has its default."""
    spec = msgspec.convert(application["args"]["spec"], ModelSpec)
    return {**application, "args": {"engine": {}, **application["args"], "spec": spec}}


SCALED = {
    **MODEL,
    "id": "scaled-1.5",
    "replicas": 0,
    "max_surge_percent": 50,
    "autoscaling": {"min_replicas": 0, "max_replicas": 3, "target_tokens": 5000, "to_zero_delay_s": 60},
}


def test_a_model_that_scales_is_asked_for_as_locally_and_serve_takes_it() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    (service,) = of_kind(render({"models": [SCALED]}), "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert _as_served(application) == _as_served(_local_application(SCALED, "cpu"))
    (read,) = schema.ServeDeploySchema(**config).applications[0].deployments
    assert (read.autoscaling_config["min_replicas"], read.max_surge_percent) == (0, 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version"),
        ({"replicas": 0}, "`replicas` must be at least 1"),
        ({"max_surge_percent": 101}, "max_surge_percent"),
        ({"lora": {"max_cpu_loras": 32}}, "max_cpu_loras"),
        ({"content_hash": "abc"}, "content_hash"),
        ({"autoscaling": {"max_replicas": 2}}, "target_tokens"),
        ({"autoscaling": {"max_replicas": 2, "target_tokens": 10, "target": 1}}, "target"),
        ({"accelerators": {"cpu": {"bundle": {"CPU": 1}, "engine": {"max_num_seqs": 1}}}}, "bundle_per_worker"),
        ({"accelerators": {"tpu": MODEL["accelerators"]["cpu"]}}, "tpu"),
        ({"accelerators": {"cuda": MODEL["accelerators"]["cuda"]}}, "says nothing of cpu"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(helm_python.HelmError, match=message):
        render({"models": [{**MODEL, **change}]})


def test_every_ray_node_has_the_environment_that_serve_needs() -> None:
    (service,) = of_kind(render({}), "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        environment = {item["name"]: item.get("value") for item in container["env"]}
        assert serve_environment().items() <= environment.items()
        assert {METER_SECRET, REPLICA_BEARER, REDIS_URL, BLOB_URL} <= environment.keys()


def test_gateways_read_the_same_models() -> None:
    manifests = render(VALUES[2])
    models = next(item for item in of_kind(manifests, "ConfigMap") if item["metadata"]["name"] == "ty-models")
    assert msgspec.convert(yaml.safe_load(models["data"]["b.yaml"]), ModelSpec).id == "b"
    (container,) = pods(manifests)["Deployment/ty-gateway"]["containers"]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["TOKENYARD_MODELS"] == '["a","b"]'


def test_gateways_believe_the_proxies_that_are_named_and_no_others() -> None:
    for given in ([], ["10.0.0.0/8", "192.0.2.7"]):
        (container,) = pods(render({"gateway": {"trustedProxies": given}}))["Deployment/ty-gateway"]["containers"]
        environment = {item["name"]: item.get("value") for item in container["env"]}
        assert json.loads(environment["TOKENYARD_TRUSTED_PROXIES"]) == given


TRAINING: dict[str, Any] = {
    **{"workers": 2, "cpus": 0.5, "gpus": 1, "strategy": "fsdp"},
    **{"timeoutSeconds": 7200, "maxRunning": 8, "autoscaled": True},
}


def test_gateway_and_worker_train_as_the_values_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _training_of(render({}), monkeypatch) == training_policy(Settings(ray_url="http://ray:8265"))
    policy = _training_of(render({"training": TRAINING}), monkeypatch)
    assert (policy.max_running, policy.autoscaled, policy.quantized_models) == (8, True, frozenset())
    assert policy.resources == TrainingResources(num_workers=2, cpus=0.5, gpus=1, strategy="fsdp", timeout_s=7200)
    quantized = {"gpus": 1, "quantizedModels": ["a", "b"]}
    assert _training_of(render({"training": quantized}), monkeypatch).quantized_models == {"a", "b"}


SPREAD: dict[str, Any] = {"training_strategy": "fsdp", "training_workers": 2, "training_num_gpus": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {**SPREAD, "training_workers": 1},
        {**SPREAD, "training_num_gpus": 0},
        {**SPREAD, "training_quantized_models": ("a",)},
        {"training_quantized_models": ("a",)},
    ],
)
def test_what_needs_gpus_is_refused_without_them(wrong: dict[str, Any]) -> None:
    assert Settings(**SPREAD).training_strategy == "fsdp"
    with pytest.raises(ValidationError, match="training_num_gpus"):
        Settings(**wrong)


def _training_of(manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> TrainingPolicy:
    """Return the policy of every pod that has one: they are the same."""
    found = []
    for name in ("Deployment/ty-gateway", "Deployment/ty-worker"):
        (container,) = pods(manifests)[name]["containers"]
        with monkeypatch.context() as environment:
            for item in container["env"]:
                if item["name"].lower().startswith(("tokenyard_training_", "tokenyard_ray_url")):
                    environment.setenv(item["name"], item["value"])
            found.append(training_policy(Settings()))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"strategy": "zero"}, {"maxRunning": 0}, {"gpu": 1}])
def test_training_that_there_is_not_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError, match=next(iter(wrong))):
        render({"training": wrong})


def test_a_gateway_is_asked_whether_it_can_answer() -> None:
    """`/ready` says so whatever else is away; `/health` is what it would be restarted for."""
    (container,) = pods(render({}))["Deployment/ty-gateway"]["containers"]
    probes = {kind: container[kind]["httpGet"]["path"] for kind in ("readinessProbe", "livenessProbe")}
    assert probes == {"readinessProbe": "/ready", "livenessProbe": "/health"}


def test_only_the_migration_job_reads_rate_cards_and_finds_them() -> None:
    """Everybody else has them from the database, so that no rollback of the chart takes a price back."""
    manifests = render(VALUES[2])
    (prices,) = [item for item in of_kind(manifests, "ConfigMap") if item["metadata"]["name"] == "ty-prices"]
    (job,) = of_kind(manifests, "Job")
    assert set(prices["data"]) == {"2027-01-01.yaml"}
    hooks = [item["metadata"]["annotations"] for item in (prices, job)]
    assert [hook["helm.sh/hook"] for hook in hooks] == ["pre-install,pre-upgrade"] * 2
    assert int(hooks[0]["helm.sh/hook-weight"]) < int(hooks[1].get("helm.sh/hook-weight", 0))
    for name, pod in pods(manifests).items():
        (container,) = pod["containers"]
        told = [item["value"] for item in container.get("env", []) if item["name"] == "TOKENYARD_PRICES_DIR"]
        mounted = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "prices"]
        volumes = [volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "prices"]
        if name.startswith("Job/"):
            assert (told, mounted, volumes) == (*[["/etc/tokenyard/prices"]] * 2, ["ty-prices"])
        else:
            assert (told, mounted, volumes) == ([], [], []), name


def test_the_cards_that_ship_are_imported_where_no_others_are_given() -> None:
    manifests = render({})
    assert [item["metadata"]["name"] for item in of_kind(manifests, "ConfigMap")] == ["ty-models"]
    assert "TOKENYARD_PRICES_DIR" not in str(manifests)


def test_a_release_of_any_name_starts() -> None:
    """Kubernetes' service links of a release `tokenyard` would say TOKENYARD_GATEWAY_PORT=tcp://... to every pod."""
    for name, pod in pods(render({}, name="tokenyard")).items():
        assert pod.get("enableServiceLinks") is False, name


def test_only_the_ray_head_gets_a_service_account_token() -> None:
    """KubeRay's autoscaler runs beside the head and reads it; nobody else needs one."""
    mounted = {name for name, pod in pods(render({})).items() if pod["automountServiceAccountToken"]}
    assert mounted == {"head"}


def test_the_one_secret_that_the_readme_makes_is_all_that_is_asked_for() -> None:
    asked: dict[str, set[str]] = {}
    manifests = render({})
    for pod in pods(manifests).values():
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    asked.setdefault(reference["name"], set()).add(reference["key"])
        for volume in pod["volumes"]:
            if secret := volume.get("secret"):
                asked.setdefault(secret["secretName"], set()).update(item["key"] for item in secret["items"])
    (service,) = of_kind(manifests, "RayService")
    ray = service["spec"]["rayClusterConfig"]["authOptions"]["secretName"]
    asked.setdefault(ray, set()).add("auth_token")  # the key that KubeRay reads
    printed = secret_values(Settings(secret=SecretStr("s" * 32)))
    assert asked == {"tokenyard": {*printed, "database-url", "redis-url"}}


def _on_gpus(**stated: object) -> dict[str, Any]:
    return {**MODEL, "accelerators": {"cuda": {**MODEL["accelerators"]["cuda"], **stated}}}


@pytest.mark.parametrize("gpus", [1, 4])
def test_ray_workers_ask_for_the_gpus_that_their_replicas_need(gpus: int) -> None:
    ray = {"accelerator": "cuda", "workers": {"gpus": gpus}}
    rendered = pods(render({"ray": ray, "models": [_on_gpus(tensor_parallel_size=gpus, placement="STRICT_PACK")]}))
    (worker,), (head,) = rendered["cuda"]["containers"], rendered["head"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == gpus
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    (on_cpu,) = pods(render({}))["cpu"]["containers"]
    assert "nvidia.com/gpu" not in on_cpu["resources"]["limits"]


@pytest.mark.parametrize(
    ("stated", "fits"),
    [
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, True),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 3}, False),
        ({"tensor_parallel_size": 2, "placement": "STRICT_PACK"}, True),
        ({"tensor_parallel_size": 4, "placement": "STRICT_PACK"}, False),
    ],
)
def test_a_model_that_the_workers_cannot_hold_is_refused(stated: dict[str, object], *, fits: bool) -> None:
    """Two workers of two GPUs each; a replica that must lie on one node has one of them."""
    values = {
        "ray": {"accelerator": "cuda", "workers": {"gpus": 2, "maxReplicas": 2}},
        "models": [_on_gpus(**stated)],
    }
    if fits:
        assert of_kind(render(values), "RayService")
        return
    with pytest.raises(helm_python.HelmError, match="GPUs, and there are at most"):
        render(values)


def test_models_of_two_kinds_lie_on_workers_of_their_own() -> None:
    (service,) = of_kind(render(VALUES[3]), "RayService")
    applications = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert [one["args"]["kind"] for one in applications] == ["cuda", "cpu"]
    small = VALUES[3]["models"][1]
    assert _as_served(applications[1]) == _as_served(_local_application(small, "cpu"))
    groups = {one["groupName"]: one for one in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    for kind in ("cpu", "cuda"):
        stated = groups[kind]["rayStartParams"]["resources"]
        assert json.loads(json.loads(stated)) == {node_resource(kind): 1000}  # KubeRay takes it quoted
    images = {kind: one["template"]["spec"]["containers"][0]["image"] for kind, one in groups.items()}
    assert images["cpu"] == CPU_WORKERS["image"] != images["cuda"]
    limits = {
        kind: one["template"]["spec"]["containers"][0]["resources"].get("limits", {}) for kind, one in groups.items()
    }
    assert ("nvidia.com/gpu" in limits["cuda"], "nvidia.com/gpu" in limits["cpu"]) == (True, False)
    config = llm_config(msgspec.convert(small, ModelSpec), path="/x", kind="cpu", overrides={})
    assert config["placement_group_config"]["bundle_per_worker"][node_resource("cpu")] > 0


def test_a_model_that_is_served_elsewhere_takes_no_ray() -> None:
    sold = {name: value for name, value in MODEL.items() if name not in {"accelerators", "lora", "replicas"}}
    sold |= {"id": "sold", "source": {"kind": "server", "url": "https://models.example/v1", "model": "theirs"}}
    for accelerator in ("cpu", "cuda"):
        manifests = render({"ray": {"accelerator": accelerator}, "models": [MODEL, sold]})
        (service,) = of_kind(manifests, "RayService")
        applications = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
        assert [one["name"] for one in applications] == [MODEL["id"]]
        models = next(item for item in of_kind(manifests, "ConfigMap") if item["metadata"]["name"] == "ty-models")
        assert set(models["data"]) == {f"{MODEL['id']}.yaml", "sold.yaml"}


def test_the_keys_of_servers_elsewhere_reach_the_gateway_alone() -> None:
    key = {"name": "TOKENYARD_SERVER_KEYS", "valueFrom": {"secretKeyRef": {"name": "servers", "key": "keys"}}}
    rendered = pods(render({"gateway": {"extraEnv": [key]}}))
    holders = {name for name, pod in rendered.items() if key in pod["containers"][0].get("env", [])}
    assert holders == {"Deployment/ty-gateway"}


def test_ray_pods_are_probed_by_what_the_image_has() -> None:
    """KubeRay's own probe of a RayService's worker runs wget against a proxy that only the head has."""
    rendered = pods(render({}))
    for name in ("head", "cpu"):
        (container,) = rendered[name]["containers"]
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            assert probe["httpGet"] == {"path": NODE_HEALTH_PATH, "port": NODE_HEALTH_PORT}


def test_a_fresh_image_carries_no_secret_of_its_maker() -> None:
    """What stands in the folder beside the sources (`secrets.env`) must not reach the build context."""
    first, *rules = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for word in line.split()[1:-1]
    }
    assert copied == allowed
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name.split("/")[0] for name in tracked} >= allowed
    assert not any(name.endswith(".env") for name in tracked)
    assert "*.env" in (ROOT / ".gitignore").read_text().split()
    assert "> secrets.env" not in (ROOT / "README.md").read_text()


def test_the_default_object_store_has_its_driver() -> None:
    scheme = yaml.safe_load((CHART / "values.yaml").read_text())["blobUrl"].partition("://")[0]
    assert fsspec.get_filesystem_class(scheme).__name__ == "S3FileSystem"


def test_the_dashboard_has_nothing_but_the_api() -> None:
    pod = pods(render({}))["Deployment/ty-dashboard"]
    (container,) = pod["containers"]
    environment = {item["name"] for item in container["env"]}
    assert environment == {
        "TOKENYARD_SECRET",
        "TOKENYARD_HOST",
        "TOKENYARD_API_URL",
        "TOKENYARD_DASHBOARD_OVER_HTTPS",
    }
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]


def test_only_the_tenants_api_is_public() -> None:
    (ingress,) = of_kind(render(VALUES[1]), "Ingress")
    paths = [path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert paths == ["/v1"]


def test_no_secret_is_written_into_a_manifest() -> None:
    manifests = render({})
    assert not of_kind(manifests, "Secret")
    for deployment in of_kind(manifests, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        environment = {item["name"]: item for item in container["env"]}
        assert "valueFrom" in environment["TOKENYARD_SECRET"]


def test_values_that_cannot_work_are_refused() -> None:
    with pytest.raises(helm_python.HelmError):
        render({"ray": {"accelerator": "tpu"}})


def test_the_chart_passes_lint() -> None:
    result = helm_python.lint(str(CHART))
    assert result["errors"] == []
