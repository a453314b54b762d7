"""Ray Serve's REST API on Ray's dashboard: which applications shall run, how they are, where their replicas listen."""

from collections.abc import Mapping

import msgspec

from tokenyard.clients.bearer_session import LOSSES, BearerSession
from tokenyard.core.errors import Unavailable
from tokenyard.core.replica import Replica

PATH = "/api/serve/applications/"
TIMEOUT_S = 30.0
# Serve names a replica's own port so; where an application has none it names its proxies instead.
_REPLICA_PREFIX = "SERVE_REPLICA::"


class ServeRefused(Exception):
    """Serve does not take the config; the message is its own."""


class ApplicationStatus(msgspec.Struct, frozen=True):
    """`status` is Serve's: NOT_STARTED, DEPLOYING, RUNNING, UNHEALTHY, DEPLOY_FAILED or DELETING."""

    status: str
    message: str = ""


class _Target(msgspec.Struct):
    ip: str
    port: int
    name: str


class _TargetGroup(msgspec.Struct):
    targets: list[_Target]
    route_prefix: str
    protocol: str
    app_name: str = ""


class _Details(msgspec.Struct):
    applications: dict[str, ApplicationStatus] = {}
    target_groups: list[_TargetGroup] = []


class RayServe(BearerSession):
    """Used as `async with`. Every call raises `Unavailable` where Ray's dashboard (`url`) or Serve does not answer."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(token, answer_timeout_s=TIMEOUT_S)
        self._url = url.rstrip("/") + PATH

    async def deploy(self, config: Mapping[str, object]) -> None:
        """Say which applications shall run, all of them; Serve makes it so in its own time.

        Raises:
            ServeRefused: the config is wrong.
        """
        status, body = await self._call("PUT", msgspec.json.encode(config))
        if status != 200:
            # Where Ray fails, its own words stand at the end of a traceback.
            said = f"Ray Serve answered {status}: {body.decode(errors='replace').strip()[-500:]}"
            raise Unavailable(said) if status >= 500 else ServeRefused(said)

    async def statuses(self) -> dict[str, ApplicationStatus]:
        return (await self._details()).applications

    async def targets(self) -> list[Replica]:
        """Return every replica that Serve sends traffic to, by its own address."""
        return [one for one in await self._targets() if one.name.startswith(_REPLICA_PREFIX)]

    async def proxies(self) -> list[Replica]:
        """Return Serve's proxies as they stand for the models that have no replica: to ask there wakes the model."""
        return [one for one in await self._targets() if not one.name.startswith(_REPLICA_PREFIX)]

    async def _targets(self) -> list[Replica]:
        return [
            Replica(name=target.name, model=group.app_name, url=_url(target, group.route_prefix))
            for group in (await self._details()).target_groups
            if group.protocol == "HTTP"
            for target in group.targets
        ]

    async def _details(self) -> _Details:
        status, body = await self._call("GET")
        if status != 200:
            raise Unavailable(f"Ray's dashboard answered {status}.")
        try:
            return msgspec.json.decode(body, type=_Details)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"Ray Serve's answer cannot be read: {error}") from error

    async def _call(self, method: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"content-type": "application/json"}
        try:
            async with self.session.request(method, self._url, data=body, headers=headers) as response:
                return response.status, await response.read()
        except LOSSES as error:
            raise Unavailable(f"Ray's dashboard does not answer: {type(error).__name__}") from error


def _url(target: _Target, route_prefix: str) -> str:
    host = f"[{target.ip}]" if ":" in target.ip else target.ip
    return f"http://{host}:{target.port}{route_prefix.rstrip('/')}"
