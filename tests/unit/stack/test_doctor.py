"""What `tokenyard doctor` finds where nothing runs."""

from pathlib import Path

from tokenyard.settings import Settings
from tokenyard.stack.doctor import examine, report


async def test_a_model_without_description_and_one_that_is_half_there_are_problems(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", models=("smollm2-135m-instruct", "nowhere"))
    (settings.effective_models_path / "smollm2-135m-instruct").mkdir(parents=True)
    findings = await examine(settings)
    text = report(findings)
    assert findings.process is None
    assert findings.running == []
    assert "TOKENYARD_MODELS names nowhere" in text
    assert "smollm2-135m-instruct is not a complete model" in text
    assert "nothing; start it with `tokenyard up`" in text
    assert findings.installed["ray"] in text
