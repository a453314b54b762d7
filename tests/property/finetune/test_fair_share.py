"""Fair training: whatever comes when, two organizations that wait get tokens by their weights, and nobody starves."""

import itertools
from fractions import Fraction

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tokenyard.core.ids import ApiKeyId, FileId, JobId, OrganizationId, PriceId, ProjectId
from tokenyard.core.money import NanoDollars
from tokenyard.core.training import Hyperparameters, TrainingTerms
from tokenyard.finetune.job import Job
from tokenyard.finetune.planning.fair_share import SCALE
from tokenyard.finetune.scheduling import Standing, TrainingPolicy, decide
from tokenyard.finetune.states import JobOutcome, JobState

ORGANIZATIONS = [OrganizationId(name) for name in "abc"]
MAX_TOKENS = 1000
START_MS = 1_750_000_000_000


def new_job(number: int, organization: OrganizationId, tokens: int, now_ms: int) -> Job:
    return Job(
        id=JobId(f"ftjob-{number:06}"),
        organization=organization,
        project=ProjectId("proj"),
        key=ApiKeyId("key"),
        organization_slug="slug",
        created_at_ms=now_ms,
        model="small-model",
        suffix="custom",
        seed=1,
        training_file=FileId("file"),
        method="supervised",
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0),
        price=PriceId("price"),
        reserved_tokens=tokens,
        reserved_amount=NanoDollars(1),
        state=JobState.QUEUED,
    )


class FairTraining(RuleBasedStateMachine):
    """Jobs come and end in any order. `base` is, for each pair, the lead of the one as both last began to wait."""

    @initialize(slots=st.integers(1, 4), weights=st.tuples(*[st.integers(1, 10)] * 3), exact=st.booleans())
    def begin(self, slots: int, weights: tuple[int, int, int], exact: bool) -> None:
        self.exact = exact
        self.slots = slots
        self.terms = {one: TrainingTerms(weight=w) for one, w in zip(ORGANIZATIONS, weights, strict=True)}
        self.policy = TrainingPolicy(max_running=slots, max_running_per_organization=99)
        self.queue: list[Job] = []
        self.started: list[Job] = []
        self.numbers = itertools.count()
        self.now_ms = START_MS
        self.base: dict[tuple[OrganizationId, OrganizationId], Fraction] = {}

    @rule(who=st.sampled_from(ORGANIZATIONS), tokens=st.integers(1, MAX_TOKENS), count=st.integers(1, 4))
    def comes(self, who: OrganizationId, tokens: int, count: int) -> None:
        self.queue += [new_job(next(self.numbers), who, tokens, self.now_ms) for _ in range(count)]
        self._schedule()

    @rule(which=st.integers(0, 3), part=st.integers(1, 4), fails=st.booleans())
    def ends(self, which: int, part: int, fails: bool) -> None:
        training = [one for one in self.started if one.slot is not None]
        if not training:
            return
        job = training[which % len(training)]
        fails, part = fails and not self.exact, 1 if self.exact else part
        outcome = JobOutcome.FAILED if fails else JobOutcome.SUCCEEDED
        tokens = 0 if fails else max(1, job.reserved_tokens // part)
        ended = msgspec.structs.replace(
            job, slot=None, state=JobState(outcome.value), outcome=outcome, trained_tokens=tokens
        )
        self.started[self.started.index(job)] = ended
        self._schedule()

    def _schedule(self) -> None:
        self.now_ms += 1000
        training = sum(one.slot is not None for one in self.started)
        standing = Standing(self.started, self.terms, self.slots - training)
        after = [after.job for _, after in decide(self.policy, standing, self.queue, self.now_ms)]
        self.queue = sorted(
            (one for one in after if one.state is JobState.QUEUED), key=lambda one: (one.created_at_ms, one.id)
        )
        self.started += [one for one in after if one.slot is not None]

    def _service(self, who: OrganizationId) -> Fraction:
        done = sum(one.share_tokens for one in self.started if one.organization == who)
        return Fraction(done, self.terms[who].weight)

    def _largest(self, who: OrganizationId) -> Fraction:
        return Fraction(MAX_TOKENS, self.terms[who].weight)

    @invariant()
    def no_slot_is_idle_while_jobs_wait(self) -> None:
        if hasattr(self, "queue") and self.queue:
            assert sum(one.slot is not None for one in self.started) == self.slots

    @invariant()
    def those_who_wait_get_what_their_weights_say(self) -> None:
        if not hasattr(self, "queue"):
            return
        waiting = {one.organization for one in self.queue}
        for pair in itertools.combinations(ORGANIZATIONS, 2):
            if not waiting.issuperset(pair):
                self.base.pop(pair, None)
                continue
            lead = self._service(pair[0]) - self._service(pair[1])
            since = lead - self.base.setdefault(pair, lead)
            # What a job trains less than it might is given back only as it ends.
            bound = (1 if self.exact else 2) * (self.slots + 1) * (self._largest(pair[0]) + self._largest(pair[1]))
            assert abs(since) <= bound + Fraction(len(self.started), SCALE)


TestFairTraining = FairTraining.TestCase
TestFairTraining.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(max_examples=60, deadline=None)
@given(
    heavy=st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=3),
    light=st.lists(st.integers(200, MAX_TOKENS), min_size=40, max_size=40),
)
def test_a_stream_of_newcomers_does_not_starve_who_trained_much(heavy: list[int], light: list[int]) -> None:
    numbers = itertools.count()
    queue = [new_job(next(numbers), ORGANIZATIONS[0], tokens, START_MS) for tokens in heavy]
    started: list[Job] = []
    for round_, tokens in enumerate(light):
        now_ms = START_MS + 1000 * round_
        queue.append(new_job(next(numbers), OrganizationId(f"new-{round_}"), tokens, now_ms))
        after = [one.job for _, one in decide(TrainingPolicy(), Standing(started, free=1), queue, now_ms)]
        begun = [one for one in after if one.slot is not None]
        started += [msgspec.structs.replace(one, slot=None, trained_tokens=one.reserved_tokens) for one in begun]
        queue = sorted((one for one in after if one.slot is None), key=lambda one: (one.created_at_ms, one.id))
    first = next(place for place, one in enumerate(started) if one.organization == ORGANIZATIONS[0])
    mine = sum(one.organization == ORGANIZATIONS[0] for one in started)
    assert first == 0
    assert mine == len(heavy), "it has its share, however many come"
