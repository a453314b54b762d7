"""Random walks through the state machine."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.finetune.states import FINISHED, IllegalTransition, JobOutcome, JobState, check_transition, outward

ORDER = {"validating_files": 0, "queued": 1, "running": 2, "succeeded": 3, "failed": 3, "cancelled": 3}
DECIDED = (JobState.STOPPING, JobState.SETTLING)
RESTING = {JobState.PAUSING, JobState.RESUMING, JobState.PAUSED}


@given(st.lists(st.tuples(st.sampled_from(JobState), st.sampled_from([None, *JobOutcome])), max_size=60))
def test_a_walk_only_goes_forward_and_ends_once(wishes: list[tuple[JobState, JobOutcome | None]]) -> None:
    state, outcome = JobState.CREATING, None
    seen = [state]
    statuses = [outward(state, outcome)]
    for wished, wished_outcome in wishes:
        wanted = outcome or wished_outcome
        try:
            check_transition(state, wished, wanted)
        except IllegalTransition:
            continue
        decided = wanted if wished in (JobState.STOPPING, JobState.SETTLING) or wished in FINISHED else None
        assert outcome is None or decided == outcome
        state, outcome = wished, decided
        seen.append(state)
        statuses.append(outward(state, outcome))
    for number, stretch in enumerate(_between_pauses(seen)):
        assert len(stretch) == len(set(stretch))
        assert number == 0 or stretch[0] in (JobState.VALIDATING, JobState.QUEUED, JobState.CHECKING, *DECIDED)
    told = [ORDER[status] for status in statuses if status != "paused"]
    if not RESTING & set(seen):
        assert told == sorted(told)
    assert JobState.RUNNING not in after_checking(seen)
    if state in FINISHED:
        assert JobState.SETTLING in seen
        assert (state is JobState.SUCCEEDED) <= (JobState.CHECKING in seen)


def _between_pauses(seen: list[JobState]) -> list[list[JobState]]:
    """Return the states in which the job did not rest, each stretch for itself."""
    return [list(states) for resting, states in groupby(seen, lambda state: state in RESTING) if not resting]


def after_checking(seen: list[JobState]) -> list[JobState]:
    return seen[seen.index(JobState.CHECKING) :] if JobState.CHECKING in seen else []


def test_every_state_leads_to_an_end() -> None:
    def ends(state: JobState, outcome: JobOutcome | None, passed: frozenset[JobState]) -> bool:
        if state in FINISHED:
            return True
        for after in set(JobState) - passed:
            for wanted in [outcome] if outcome else [None, *JobOutcome]:
                try:
                    check_transition(state, after, wanted)
                except IllegalTransition:
                    continue
                if ends(after, wanted, passed | {after}):
                    return True
        return False

    undecided = set(JobState) - FINISHED - set(DECIDED)
    assert all(ends(state, None, frozenset({state})) for state in undecided)
    for outcome in (JobOutcome.FAILED, JobOutcome.CANCELLED):
        assert ends(JobState.STOPPING, outcome, frozenset({JobState.STOPPING}))
    assert all(ends(JobState.SETTLING, outcome, frozenset({JobState.SETTLING})) for outcome in JobOutcome)
