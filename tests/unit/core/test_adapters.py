"""What an adapter may be, and how it is named and found."""

import pytest

from tokenyard.core.adapters import (
    LINEAR_LAYERS,
    AdapterNotAllowed,
    AdapterRef,
    AdapterRules,
    FineTunedName,
    parse_fine_tuned,
    valid_suffix,
)
from tokenyard.core.ids import AdapterId

RULES = AdapterRules(max_rank=16)
GOOD = {"peft_type": "LORA", "r": 16, "target_modules": list(LINEAR_LAYERS), "bias": "none"}


def test_a_good_adapter_passes_with_its_rank() -> None:
    assert RULES.check(GOOD) == 16


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"r": 17}, "rank_not_allowed"),
        ({"r": None}, "rank_not_allowed"),
        ({"target_modules": []}, "module_not_allowed"),
        ({"target_modules": ["q_proj", ["v_proj"]]}, "module_not_allowed"),
        ({"peft_type": "IA3"}, "adapter_unsupported"),
        ({"alpha_pattern": {"q_proj": 1}}, "adapter_unsupported"),
    ],
)
def test_what_is_not_served_is_refused_with_a_code(change: dict[str, object], code: str) -> None:
    with pytest.raises(AdapterNotAllowed) as refused:
        RULES.check(GOOD | change)
    assert refused.value.code == code


def test_a_name_reads_back() -> None:
    name = FineTunedName("small", "acme", "sky", AdapterId("0123"))
    assert parse_fine_tuned(str(name)) == name
    assert parse_fine_tuned("ft:small:acme:sky") is None
    checkpoint = name.at_step(40)
    assert str(checkpoint) == "ft:small:acme:sky:0123:ckpt-step-40", "as OpenAI's are called"
    assert parse_fine_tuned(str(checkpoint)) == checkpoint
    assert (name.adapter, checkpoint.adapter) == ("0123", "0123-step-40")
    for end in (
        "",
        "ckpt-step-",
        "ckpt-step-0",
        "ckpt-step-04",
        "ckpt-step-4x",
        "ckpt-step-4\n",
        "CKPT-STEP-4",
        "step-4",
    ):
        assert parse_fine_tuned(f"{name}:{end}") is None
    assert [valid_suffix(text) for text in ("sky-1", "", "-sky", "Sky", "a" * 65)] == [True, *[False] * 4]


@pytest.mark.parametrize(
    ("path", "digest"),
    [("../a/b", "0" * 64), ("a", "0" * 64), ("a/.b", "0" * 64), ("a/b", "0" * 63), ("a/b\n", "0" * 64)],
)
def test_a_reference_out_of_the_store_is_not_well_formed(path: str, digest: str) -> None:
    assert AdapterRef(AdapterId("a"), "ft", "jobs/org_1/adapter", "0" * 64).well_formed
    assert not AdapterRef(AdapterId("a"), "ft", path, digest).well_formed
