"""Random walks through the state machine."""

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.finetune.states import FINISHED, IllegalTransition, JobOutcome, JobState, check_transition, outward

ORDER = {"validating_files": 0, "queued": 1, "running": 2, "succeeded": 3, "failed": 3, "cancelled": 3}


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
    assert len(seen) == len(set(seen))
    assert [ORDER[status] for status in statuses] == sorted(ORDER[status] for status in statuses)
    if state in FINISHED:
        assert JobState.SETTLING in seen
        assert (state is JobState.SUCCEEDED) <= (JobState.CHECKING in seen)


def test_every_state_leads_to_an_end() -> None:
    def ends(state: JobState, outcome: JobOutcome | None) -> bool:
        if state in FINISHED:
            return True
        for after in JobState:
            for wanted in [outcome] if outcome else [None, *JobOutcome]:
                try:
                    check_transition(state, after, wanted)
                except IllegalTransition:
                    continue
                if ends(after, wanted):
                    return True
        return False

    assert all(ends(state, None) for state in (JobState.CREATING, JobState.CHECKING))
    assert all(ends(JobState.STOPPING, outcome) for outcome in (JobOutcome.FAILED, JobOutcome.CANCELLED))
    assert all(ends(JobState.SETTLING, outcome) for outcome in JobOutcome)
