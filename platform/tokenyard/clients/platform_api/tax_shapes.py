"""What the API tells of taxes."""

from tokenyard.clients.platform_api.shapes import ApiObject


class TaxRateInfo(ApiObject):
    """What a jurisdiction takes from a moment on; prices hold it already (`inclusive`), or it comes on top."""

    id: str
    jurisdiction: str
    name: str
    percent: str
    inclusive: bool
    effective_from_ms: int
    published_by: str


class TaxProfileInfo(ApiObject):
    """Where an organization pays tax for what it uses in `since_period` and later."""

    organization: str
    jurisdiction: str | None
    exemption: str
    reason: str
    since_period: str | None
