"""Who bills and who is billed, as the API answers it."""

from tokenyard.clients.platform_api.shapes import ApiObject


class PartyInfo(ApiObject):
    """An organization's billing details, or the issuer's; None where they have not been stated."""

    details: dict[str, str] | None = None
    changed_at_ms: int | None = None
