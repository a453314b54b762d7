"""The description of a base model: what it must say, and what it refuses."""

from pathlib import Path

import msgspec
import pytest

from tokenyard.core.model_files.reading import read_model_spec, write_model_spec
from tokenyard.core.model_files.sources import PackageFolderSource, PackageSource
from tokenyard.core.models import InvalidModelSpec, ModelTask

SHIPPED = Path(__file__).parents[3] / "deployments" / "models"

MINIMAL = """
version: 2
id: tiny
source: {kind: folder, path: /models/tiny}
context_length: 1024
default_max_tokens: 128
template_tokens: 8
template_tokens_per_message: 4
created: 1
accelerators: {cpu: {bundle_per_worker: {CPU: 1}, engine: {max_num_seqs: 4}}}
"""


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_description_is_valid_and_named_after_its_id(path: Path) -> None:
    spec = read_model_spec(path.read_bytes())
    assert spec.id == path.stem
    assert spec.slots("cpu") > 0


def test_the_embedding_model_is_pinned_by_hash() -> None:
    spec = read_model_spec((SHIPPED / "all-minilm-l6-v2.yaml").read_bytes())
    assert isinstance(spec.source, PackageFolderSource)
    assert all(len(digest) == 64 for digest in (spec.source.wheel_sha256, *spec.source.files.values()))
    assert not [name for name in spec.source.files if not name.endswith((".json", ".safetensors", ".txt"))]
    assert (spec.task, spec.dimensions, spec.lora) == (ModelTask.EMBEDDING, (384,), None)


def test_a_model_is_for_chats_unless_its_file_says_otherwise() -> None:
    assert read_model_spec(MINIMAL.encode()).task is ModelTask.CHAT


def test_the_default_model_is_pinned_by_hash() -> None:
    source = read_model_spec((SHIPPED / "smollm2-135m-instruct.yaml").read_bytes()).source
    assert isinstance(source, PackageSource)
    assert len(source.wheel_sha256) == len(source.file_sha256) == 64


def test_auto_is_what_was_measured_of_a_method_and_else_one() -> None:
    spec = read_model_spec(f"{MINIMAL}training: {{learning_rate_multiplier: {{supervised: 4}}}}".encode())
    assert [spec.training.multiplier(method) for method in ("supervised", "dpo")] == [4.0, 1.0]
    assert read_model_spec(write_model_spec(spec)) == spec


def test_what_is_written_reads_back_the_same() -> None:
    spec = read_model_spec(MINIMAL.encode())
    assert read_model_spec(write_model_spec(spec)) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("id: tiny", "id: Tiny Model"), "`id`"),
        (("kind: folder", "kind: ftp"), "ftp"),
        (("created: 1", "created: soon"), "created"),
        (("created: 1", "created: 1\nturbo: true"), "turbo"),
        (("created: 1", "created: 1\nreplicas: 0"), "`replicas` must be at least 1"),
        (("created: 1", "created: 1\nmax_waiting: -1"), "max_waiting"),
        (("created: 1", "created: 1\nmax_waiting_tokens: -1"), "max_waiting_tokens"),
        (("created: 1", "created: 1\nmax_wait_s: 0"), "max_wait_s"),
        (("created: 1", "created: 1\nmax_silence_s: 0"), "max_silence_s"),
        (("default_max_tokens: 128", "default_max_tokens: 2048"), "default_max_tokens"),
        (("max_num_seqs: 4", "max_num_seqs: 0"), "max_num_seqs"),
        (("created: 1", "created: 1\nlora: {max_lora_rank: 12}"), "max_lora_rank"),
        (("id: tiny", "id: [tiny"), "not a model description"),
        (("created: 1", "created: 1\nsampling: {temperature: 3}"), "sampling.temperature"),
        (("created: 1", "created: 1\nsampling: {top_p: 0}"), "sampling.top_p"),
        (("created: 1", "created: 1\nmax_wait_s: 900"), "max_request_s"),
        (("created: 1", "created: 1\nsampling: {seed: 1}"), "seed"),
        (("created: 1", "created: 1\ntools: {}"), "parser"),
        (("created: 1", "created: 1\ntraining: {learning_rate_multiplier: {full: 2}}"), "full"),
        (("created: 1", "created: 1\ntraining: {learning_rate_multiplier: {dpo: 0}}"), "learning_rate_multiplier"),
        (("created: 1", "created: 1\ntools: {parser: '--flag'}"), "tools.parser"),
        (("created: 1", "created: 1\nreasoning: {parser: ''}"), "reasoning.parser"),
        (("default_max_tokens: 128\n", ""), "default_max_tokens"),
        (("created: 1", "created: 1\ndimensions: [8]"), "`dimensions` are for embedding models"),
        (("created: 1", "created: 1\ntask: vision"), "vision"),
    ],
)
def test_a_wrong_description_is_refused_with_the_field_named(change: tuple[str, str], message: str) -> None:
    with pytest.raises(InvalidModelSpec, match=message):
        read_model_spec(MINIMAL.replace(*change).encode())


EMBEDDING = MINIMAL.replace("default_max_tokens: 128", "task: embedding\nlora: null\ndimensions: [8, 4]")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("dimensions: [8, 4]", "dimensions: []"), "`dimensions`"),
        (("dimensions: [8, 4]", "dimensions: [4, 8]"), "`dimensions`"),
        (("dimensions: [8, 4]", "dimensions: [8, 8]"), "`dimensions`"),
        (("dimensions: [8, 4]", "dimensions: [0]"), "dimensions"),
        (("lora: null", "lora: {}"), "takes no adapters"),
        (("created: 1", "created: 1\ndefault_max_tokens: 8"), "generates nothing"),
        (("created: 1", "created: 1\ntools: {parser: hermes}"), "generates nothing"),
    ],
)
def test_an_embedding_model_states_its_vectors_and_nothing_of_answers(change: tuple[str, str], message: str) -> None:
    assert read_model_spec(EMBEDDING.encode()).dimensions == (8, 4)
    with pytest.raises(InvalidModelSpec, match=message):
        read_model_spec(EMBEDDING.replace(*change).encode())


def test_an_accelerator_it_does_not_know_is_an_error() -> None:
    with pytest.raises(InvalidModelSpec, match="cuda"):
        read_model_spec(MINIMAL.encode()).accelerator("cuda")


def test_parsers_are_named_or_absent() -> None:
    plain = read_model_spec(MINIMAL.encode())
    assert (plain.tool_parser, plain.reasoning_parser) == (None, None)
    able = read_model_spec((MINIMAL + "tools: {parser: hermes}\nreasoning: {parser: deepseek_r1}\n").encode())
    assert (able.tool_parser, able.reasoning_parser) == ("hermes", "deepseek_r1")


def test_sampling_says_only_what_the_file_says() -> None:
    spec = read_model_spec((MINIMAL + "sampling: {temperature: 0, top_k: 40}\n").encode())
    assert msgspec.to_builtins(spec.sampling) == {"temperature": 0.0, "top_k": 40}
    assert msgspec.to_builtins(read_model_spec(MINIMAL.encode()).sampling) == {}


ELSEWHERE = """
version: 2
id: sold
source: {kind: server, url: https://models.example/v1, model: their-model, api_key_setting: theirs}
context_length: 1024
default_max_tokens: 128
template_tokens: 8
template_tokens_per_message: 4
created: 1
"""


def test_a_model_that_is_served_elsewhere() -> None:
    spec = read_model_spec(ELSEWHERE.encode())
    assert spec.server is not None
    assert (spec.server.model, spec.server.api_key_setting, spec.server.address) == (
        "their-model",
        "theirs",
        "models.example:443",
    )
    assert (spec.lora, spec.accelerators, spec.calls_tools) == (None, {}, True)
    limited = read_model_spec(ELSEWHERE.replace("theirs}", "theirs, refuses: [tools]}").encode())
    assert not limited.calls_tools
    assert read_model_spec(MINIMAL.encode()).server is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            (("created: 1", f"created: 1\n{line}"), line.partition(":")[0])
            for line in (
                "replicas: 2",
                "lora: {}",
                "lora: null",
                "tools: {parser: hermes}",
                "reasoning: {parser: deepseek_r1}",
                "fallback: other",
                "max_waiting: 5",
                "accelerators: {cpu: {bundle_per_worker: {CPU: 1}, engine: {max_num_seqs: 4}}}",
            )
        ),
        (("https://models.example/v1", "ftp://models.example/v1"), "url"),
        (("https://models.example/v1", "https://models.example/v1/"), "url"),
        (("https://models.example/v1", "https://user:secret@models.example/v1"), "url"),
        (("https://models.example/v1", "'https://models.example/v1?key=secret'"), "url"),
        (("https://models.example/v1", "'https://models.example:port/v1'"), "url"),
        (("https://models.example/v1", "https:///v1"), "url"),
        (("theirs}", "theirs, api_key: secret}"), "api_key"),
        (("theirs}", "theirs, refuses: [top_p]}\nsampling: {top_p: 0.5}"), "top_p"),
    ],
)
def test_what_is_wrong_with_a_model_elsewhere_is_said(change: tuple[str, str], message: str) -> None:
    with pytest.raises(InvalidModelSpec, match=message):
        read_model_spec(ELSEWHERE.replace(*change).encode())


def test_a_model_of_our_own_says_how_it_runs() -> None:
    with pytest.raises(InvalidModelSpec, match="accelerators"):
        read_model_spec(MINIMAL.rpartition("accelerators")[0].encode())
