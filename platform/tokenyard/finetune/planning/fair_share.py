"""Whose job trains next: fair queueing by tags, with the virtual time of WF2Q+ (Bennett, Zhang 1997).

A job is tagged with the later of two virtual times: when it came into the queue, and when its organization's jobs
before it finish. A job lasts its tokens divided by its organization's weight, and the time goes on by the tokens that
were trained, divided by the weights of all who waited or trained. The job with the least tag is next.

So two organizations that both wait are given tokens in the ratio of their weights, but for one job of each for every
slot and one more. Who asks for nothing saves nothing up; what was done before does not count against who comes again;
and those who come, however many they are, wait for those who are there.
"""

from collections.abc import Sequence

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard.finetune.job import FairTags, Job
from tokenyard.finetune.states import JobState

SCALE = 1000
"""Virtual time is in thousandths of a token at weight 1, for weights up to 1000."""
NO_TAGS = FairTags(arrived=0)
"""Of a job that started before there were any."""


class FairShare:
    """The tags, as they follow from the jobs that have started."""

    def __init__(self, started: Sequence[Job]) -> None:
        """Take them in the order in which they started; what went before the first of them is in its tags.

        They count what is known of them by now: a job that trained less than it might have gives the rest back.
        """
        self._finish: dict[OrganizationId, int] = {}
        self._now = (started[0].fair or NO_TAGS).time if started else 0
        for job in started:
            tags, known = job.fair or NO_TAGS, self._finish.get(job.organization)
            self._count(job, tags if known is None else msgspec.structs.replace(tags, start=max(tags.arrived, known)))

    def arrived(self, queue: Sequence[Job]) -> list[Job]:
        """Return the jobs of the queue with the time at which each was seen in it first."""
        now = FairTags(arrived=self._now)
        # One that has started before was paused, and comes anew.
        return [
            msgspec.structs.replace(job, fair=now, started_at_ms=None)
            if job.fair is None or job.started_at_ms is not None
            else job
            for job in queue
        ]

    def tag(self, job: Job) -> int:
        """Return the tag of a job that has arrived and is the next of its organization."""
        return max(self._finish.get(job.organization, 0), (job.fair or NO_TAGS).arrived)

    def start(self, job: Job, weight: int, weights: int) -> FairTags:
        """Count a job, and return the tags that it keeps."""
        arrived = (job.fair or NO_TAGS).arrived
        tags = FairTags(arrived=arrived, start=self.tag(job), time=self._now, weight=weight, weights=weights)
        self._count(job, tags)
        return tags

    def _count(self, job: Job, tags: FairTags) -> None:
        size = job.share_tokens * SCALE
        self._finish[job.organization] = tags.start + size // tags.weight
        done = 0 if job.slot is not None or job.state is JobState.QUEUED else size
        self._now = max(self._now + done // tags.weights, tags.start)
