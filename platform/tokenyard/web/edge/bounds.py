"""What a connection may cost before anybody knows who it is."""

from dataclasses import dataclass, field

from tokenyard.web.client_address import TrustedProxies
from tokenyard.web.network_pace import Allowance

MAX_URL_BYTES = 8 * 1024
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_WAITING_REQUESTS = 16
# What chunks may cost on top of what is in them: clients that send little at a time are slow, not wrong. But each costs
# as much time as many bytes, so that those of a long body are to be at least some twenty bytes long.
FRAMING_BYTES, FRAMING_TIMES = 16 * 1024, 1.25
SLICE_BYTES = 16 * 1024
# Of one network 100 new connections a second and 500 at once, or fewer that are refused; three times that of all that
# push.
EACH, TOGETHER = Allowance(0.01, 0.05), Allowance(0.03, 0.15)
CONNECTION_S, REFUSAL_S = 0.0001, 0.0004


@dataclass(frozen=True)
class HttpBounds:
    """Beyond `connections` so many are `held` until it is their turn: to end them would only bring them back.

    A connection may wait `idle_s` for its next request. That is to be longer than what stands before it keeps one: who
    sends a request as its connection is closed cannot know whether it was served.

    `upload_s` is what a body may take however small it is; after that it must come at `upload_bytes_per_s`. All
    bodies together that still come when they were answered are read at `unwanted_bytes_per_s`. Who takes nothing of
    what it is sent for `stalled_s` is disconnected.

    A client's connections are those of its address, or of its /64 network. Who comes through a trusted proxy is known
    by `X-Forwarded-For`, and for it the requests under way count instead.
    """

    connections: int = 4096
    held: int = 8192
    connections_of_one: int = 512
    idle_s: int = 75
    header_s: float = 10.0
    upload_s: float = 20.0
    upload_bytes_per_s: float = 16 * 1024
    unwanted_bytes_per_s: float = 32 * 1024 * 1024
    stalled_s: float = 30.0
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))
