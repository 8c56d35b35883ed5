"""What audit and log say of a request that is asked again and again: filled in instead of made anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from api.audit_record import line_of
from api.logs import rendered, stamp
from api.observation import AnsweredWith, Observation, observing
from api.template import Template

# What an example has where lines differ; the time lies in the year 2242.
_RECORD_MARK, _REQUEST_MARK = "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "1f0e3d2c5b4a79689786b5a4d3c2f1e0"
_QUERY_MARK, _STAMP_MARK = "2f3e4d5c6b7a89988796a5b4c3d2e1f0", "3f2e5d4c7b6a99889786b5a4d3c2f1e0"
_AT_MARK_NS, _MS_MARK_NS = 8_591_827_364_546_372_000, 918_273_645_546_372


class KnownLines:
    """The lines of one request, ids and times left open.

    Parameters
    ----------
    seen
        The request, as it was the first time.
    told
        What it is answered with from now on.

    Raises
    ------
    ValueError
        What was asked looks like what is left open.
    """

    def __init__(self, seen: Observation, *, told: AnsweredWith) -> None:
        marked = replace(
            seen,
            answer=replace(told, query_id=_QUERY_MARK),
            request_id=_REQUEST_MARK,
            began_at_ns=_AT_MARK_NS,
            began_ns=0,
            ended_ns=_MS_MARK_NS,
            known=None,
        )
        marked.record_id = _RECORD_MARK
        self._principal, self._outcome = seen.principal, marked.outcome
        self._audit = Template(line_of(marked), _encoded(_RECORD_MARK, _REQUEST_MARK, _at(marked), _ms(marked, 3)))
        self._log = _log_template(marked)

    def __len__(self) -> int:
        return len(self._audit) + (len(self._log) if self._log else 0)

    def fit(self, observation: Observation) -> bool:
        """Whether it ended as before, for the same caller."""
        return observation.outcome == self._outcome and observation.principal == self._principal

    def audit_line(self, observation: Observation) -> bytes:
        """What `api.audit_record.line_of` would say of the repeat."""
        return self._audit.filled(
            *_encoded(observation.record_id, observation.request_id, _at(observation), _ms(observation, 3))
        )

    def log_line(self, observation: Observation) -> bytes | None:
        """What the log would say of it; None where that is not known."""
        if self._log is None or observation.answer is None:
            return None
        query_id = observation.answer.query_id or ""
        return self._log.filled(*_encoded(stamp(), observation.request_id, _ms(observation, 1), query_id))


def _log_template(marked: Observation) -> Template | None:
    # A trace has an id of its own each time, and where there are traces they cost more than this line.
    if marked.trace_id is not None:
        return None
    with observing(marked):
        line = rendered("request", timestamp=_STAMP_MARK, **marked.summary)
    if line is None:
        return None
    return Template(line.encode(), _encoded(_STAMP_MARK, _REQUEST_MARK, _ms(marked, 1), _QUERY_MARK))


def _at(observation: Observation) -> str:
    return datetime.fromtimestamp(observation.began_at_ns / 1e9, UTC).isoformat()


def _ms(observation: Observation, digits: int) -> str:
    return repr(round(observation.duration_ns / 1e6, digits))


def _encoded(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]
