"""The one table of the paid endpoints. What stands in it is served, described in the OpenAPI document, and tested."""

from tokenyard.gateway.endpoints.chat import CHAT
from tokenyard.gateway.endpoints.completions import COMPLETIONS

ENDPOINTS = (CHAT, COMPLETIONS)
