"""Requests to addresses that settings or other servers name: https to the public internet, else to named hosts alone.

Otherwise whoever sets such an address, or is asked there and names the next one, could have this process call what only
its machine or network can reach: a cloud's metadata, a database, a neighbour's admin page (OWASP, Server-Side Request
Forgery Prevention Cheat Sheet). What the operator runs beside the service (warehouse, Redis, Kafka, a collector of
traces, the service itself for its clients) is internal by its nature, and no business of this module.
"""

from outgoing.addresses import AddressRefused, InternalHosts, OutgoingUrl, check_url, is_internal
from outgoing.transport import GuardedTransport, checked_addresses

__all__ = [
    "AddressRefused",
    "GuardedTransport",
    "InternalHosts",
    "OutgoingUrl",
    "check_url",
    "checked_addresses",
    "is_internal",
]
