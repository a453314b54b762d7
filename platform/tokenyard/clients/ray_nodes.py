"""What Ray's machines have free, from the report of its monitor, which is up to five seconds old."""

from collections.abc import Mapping, Sequence

import msgspec

from tokenyard.clients.bearer_session import LOSSES, BearerSession
from tokenyard.core.errors import Unavailable

PATH = "/api/cluster_status"
TIMEOUT_S = 10.0
RETRY_AFTER_S = 5.0


class _Load(msgspec.Struct, rename="camel"):
    usage_by_node: dict[str, dict[str, tuple[float, float]]] | None = None


class _ClusterStatus(msgspec.Struct, rename="camel"):
    load_metrics_report: _Load | None = None


class _Data(msgspec.Struct, rename="camel"):
    cluster_status: _ClusterStatus | None = None


class _Answer(msgspec.Struct):
    data: _Data


class RayNodes(BearerSession):
    """Used as `async with`."""

    def __init__(self, url: str, token: str) -> None:
        """Take the URL of Ray's dashboard."""
        super().__init__(token, answer_timeout_s=TIMEOUT_S)
        self._url = url.rstrip("/") + PATH

    async def free(self) -> Sequence[Mapping[str, float]] | None:
        """Return what of its resources each machine has free; None where Ray has no such report.

        Raises:
            Unavailable: Ray does not answer.
        """
        try:
            async with self.session.get(self._url) as reply:
                status, body = reply.status, await reply.read()
        except LOSSES as error:
            raise _unavailable(f"does not answer ({type(error).__name__})") from error
        if status != 200:
            raise _unavailable(f"answered HTTP {status}")
        try:
            report = msgspec.json.decode(body, type=_Answer).data.cluster_status
        except msgspec.MsgspecError:
            return None
        load = None if report is None else report.load_metrics_report
        if load is None or not load.usage_by_node:
            return None
        return [{name: total - used for name, (used, total) in node.items()} for node in load.usage_by_node.values()]


def _unavailable(what: str) -> Unavailable:
    return Unavailable(f"The training cluster {what}.", retry_after_s=RETRY_AFTER_S, code="training_unavailable")
