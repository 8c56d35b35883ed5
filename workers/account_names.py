"""What the things of a Snowflake account are called, and what its contract includes."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from workers.errors import SettingError

SERVICE_ROLES: Final = ("OWNER", "LOADER", "TRANSFORMER", "PIPELINE", "SERVER", "RETENTION")

_IDENTIFIER: Final = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_TAKEN: Final = frozenset(
    {"ACCOUNTADMIN", "GLOBALORGADMIN", "ORGADMIN", "PUBLIC", "SECURITYADMIN", "SNOWFLAKE", "SYSADMIN", "USERADMIN"}
)


class Edition(StrEnum):
    """What the account's contract includes. Tags, masks, row policies and several clusters need Enterprise."""

    STANDARD = "standard"
    ENTERPRISE = "enterprise"

    @property
    def time_travel_days(self) -> int:
        """The longest time travel that the files ask for; Standard has a day at most."""
        return 7 if self is Edition.ENTERPRISE else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountNames:
    """What the account's things are called; kept in capitals, as Snowflake does.

    Attributes
    ----------
    database
        Raw rows, builds and published versions.
    prefix
        Begins the names of warehouses, monitors and the services' roles.
    analyst
        The role of people with SQL of their own.

    Raises
    ------
    SettingError
        A name is no plain identifier, is Snowflake's own, or is used twice.
    """

    database: str = "MARKETING_INSIGHT"
    prefix: str = "INSIGHT"
    analyst: str = "MARKETING_ANALYST"

    def __post_init__(self) -> None:
        """Check the names, and write them in capitals."""
        for field in fields(self):
            name = str(getattr(self, field.name)).upper()
            if not _IDENTIFIER.fullmatch(name) or name in _TAKEN:
                raise SettingError(
                    f"{name!r} cannot be the name of the {field.name}",
                    hint="Use letters, digits and underscores, beginning with a letter, and no name of Snowflake's own",
                )
            object.__setattr__(self, field.name, name)
        if self.analyst in {f"{self.prefix}_{role}" for role in SERVICE_ROLES}:
            raise SettingError(f"{self.analyst} is a role of the services", hint="Name the analysts' role otherwise")
