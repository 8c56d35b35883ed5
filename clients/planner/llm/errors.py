"""Why a language model made no plan; the keyless planner makes it then.

ModelFailed
├── ModelUnreachable   it refused, broke off, or took too long
└── ModelUnusable      what it said is no plan, or more than it may
"""

from __future__ import annotations


class ModelFailed(Exception):
    """There is no plan of the model's."""


class ModelUnreachable(ModelFailed):
    """The server refused or did not answer in time."""


class ModelUnusable(ModelFailed):
    """The replies are no plan, or exceeded calls or tokens."""
