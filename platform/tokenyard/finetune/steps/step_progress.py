"""What the events of a training say of how far it has come."""

from collections.abc import Sequence

import msgspec

from tokenyard.core.training import TrainingEvent
from tokenyard.finetune.job import StepProgress


def steps_after(known: StepProgress | None, events: Sequence[TrainingEvent]) -> StepProgress | None:
    """Return the progress with `events`, oldest first; one that goes on from an earlier step starts anew."""
    for event in events:
        step, total = event.data.get("step"), event.data.get("total_steps")
        if event.type != "metrics" or step is None or total is None:
            continue
        last, at = int(step), event.created_at
        if known is None or last < known.last:
            known = StepProgress(first=last, first_at=at, last=last, last_at=at, total=int(total))
        else:
            known = msgspec.structs.replace(known, last=last, last_at=at, total=int(total))
    return known
