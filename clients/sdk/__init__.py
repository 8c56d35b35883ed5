"""A Python client of the service: metrics by name, answers as rows, Arrow, pandas or polars, refusals as exceptions."""

from clients.sdk.answers import Answer, Cell, Column, Dimension, Metric, SavedQuery, Segment, SegmentCustomer
from clients.sdk.asynchronous import AsyncClient
from clients.sdk.errors import ApiError
from clients.sdk.exchange import Retries
from clients.sdk.synchronous import Client

__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "Cell",
    "Client",
    "Column",
    "Dimension",
    "Metric",
    "Retries",
    "SavedQuery",
    "Segment",
    "SegmentCustomer",
]
