"""Creates a run: everything that can be told beforehand is checked before it is written."""

import asyncio

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.evaluation.askable import CallableModels, check_askable, check_grader_models
from tokenyard.core.ids import FileId, new_eval_run_id
from tokenyard.core.principal import Principal
from tokenyard.evals.criteria import criteria_of
from tokenyard.evals.ports import RowsFiles
from tokenyard.evals.runs.data_source import WHERE, CompletionsSource, DataSource, GivenRows, data_source_of
from tokenyard.evals.runs.run import EvalRun, RunContent
from tokenyard.evals.runs.store import EvalRunStore
from tokenyard.evals.runs.views import EvalRunRequest
from tokenyard.evals.store import EvalStore
from tokenyard.evals.work.reading import RowsProblem, given_rows

PURPOSE = "evals"
MAX_FILE_BYTES = 16 * 1024 * 1024


class EvalRunCreation:
    def __init__(
        self, evals: EvalStore, runs: EvalRunStore, files: RowsFiles, models: CallableModels, clock: Clock
    ) -> None:
        self._evals = evals
        self._runs = runs
        self._files = files
        self._models = models
        self._clock = clock

    async def create(self, caller: Principal, eval_id: str, body: EvalRunRequest) -> EvalRun:
        """Write a run that the key of `caller` pays for.

        Raises:
            InvalidRequest: what is wrong with the body, by the field.
            NotFound: no such eval, or no such model.
            PermissionDenied: the key may not use a model.
            QuotaExceeded: the organization is blocked.
        """
        caller.check_not_blocked()
        found = await self._evals.get(caller.organization, caller.project, eval_id)
        source = await asyncio.to_thread(data_source_of, body.data_source)
        content = RunContent(
            data_source=body.data_source,
            testing_criteria=found.content.testing_criteria,
            item_schema=found.content.item_schema,
            with_samples=found.content.with_samples,
        )
        model = ""
        if isinstance(source, CompletionsSource):
            model = source.model
            if not content.with_samples:
                raise InvalidRequest(
                    "No criterion of this eval sees an answer: it was created without 'include_sample_schema'.",
                    param=f"{WHERE}.type",
                )
            await check_askable(self._models, caller, model, f"{WHERE}.model")
        await self._check_graders(caller, content)
        await self._check_rows(caller, source, content)
        run = EvalRun(
            id=new_eval_run_id(),
            eval=found.id,
            organization=caller.organization,
            project=caller.project,
            key=caller.key,
            name=body.name,
            metadata=body.metadata or {},
            model=model,
            created_at_ms=self._clock.now_ms(),
            content=content,
        )
        await self._runs.create(caller.organization, run)
        return run

    async def _check_graders(self, caller: Principal, content: RunContent) -> None:
        for place, criterion in enumerate(criteria_of(content.testing_criteria)):
            await check_grader_models(self._models, caller, criterion.grader, f"testing_criteria.{place}")

    async def _check_rows(self, caller: Principal, source: DataSource, content: RunContent) -> None:
        rows, where = source.source, f"{WHERE}.source"
        if isinstance(rows, GivenRows):
            try:
                await asyncio.to_thread(given_rows, rows.content, content)
            except RowsProblem as problem:
                param = f"{where}.content.{problem.place}".removesuffix(".")
                raise InvalidRequest(problem.message, param=param, code=problem.code) from None
            return
        try:
            file = await self._files.get(caller.organization, FileId(rows.id))
        except NotFound as unknown:
            raise InvalidRequest(unknown.message, param=f"{where}.id", code="file_not_found") from None
        if file.purpose != PURPOSE:
            message = f"The file was uploaded for '{file.purpose}'; upload it with purpose '{PURPOSE}'."
            raise InvalidRequest(message, param=f"{where}.id", code="invalid_file_purpose")
        if file.bytes > MAX_FILE_BYTES:
            message = f"The file has more than {MAX_FILE_BYTES} bytes."
            raise InvalidRequest(message, param=f"{where}.id", code="file_too_large")
