"""The last wall before text leaves the process: nothing that looks like a credential passes.

No part writes a credential on purpose; but a caller may put one where a name or a value belongs.
"""

from __future__ import annotations

import re

# By a sign that each has: looking for that costs a hundredth of matching.
_CREDENTIALS = {
    "mi_": re.compile(r"mi_[0-9a-fA-F]{8}_[\w-]*"),  # ours, whole or cut
    "eyJ": re.compile(r"eyJ[\w-]{8,}\.[\w.-]*"),  # a JSON web token
    "earer ": re.compile(r"(?<=earer )[\w.~+/=-]{8,}"),
    "://": re.compile(r"(?<=://)[^/\s:@\"]*:[^/\s@\"]+(?=@)"),  # the user and password of a URL
}
_SHOWN = "[credential]"


def redacted(text: str) -> str:
    """The text with `[credential]` in place of everything that looks like one."""
    for sign, pattern in _CREDENTIALS.items():
        if sign in text:
            text = pattern.sub(_SHOWN, text)
    return text
