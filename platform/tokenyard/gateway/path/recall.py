"""What a request needs of answers that are kept, before its model is looked up."""

from collections.abc import Callable

from tokenyard.core.principal import Principal
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.ports import StoredAnswers


async def recall(body: PaidBody, principal: Principal, answers: StoredAnswers, came: Callable[[int], None]) -> None:
    """Make sure that the answer can be kept, and give the body the conversation that it goes on with.

    `came` is told how many bytes that has, as of a request's body.

    Raises:
        InvalidRequest: no such response or item, or one that cannot be gone on with.
        QuotaExceeded: there is no room for another answer.
        RateLimited: the organization has too much under way.
        Unavailable: answers cannot be read, or kept, at the moment.
    """
    if body.stores:
        await answers.check_room(principal.organization)
    wanted = body.referred_items
    if body.continues is None and not wanted:
        return
    owner = principal.organization, principal.project
    earlier = [] if body.continues is None else await answers.conversation(*owner, body.continues, came)
    body.recall(earlier, await answers.items(*owner, wanted, came) if wanted else {})
