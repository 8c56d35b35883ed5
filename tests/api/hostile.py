# ruff: noqa: RUF001 - the lookalikes are meant
"""Texts that want to be something else: SQL, templates, other texts' lookalikes, no text at all.

Drawn from a seed, so that what failed once fails again. (Hypothesis would take a minute for what takes a second here.)
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

SQL = (
    "'", "''", "'''", '"', '""', "`", "\\", "\\'", "';", "--", "-- ", "/*", "*/", "#", ";", "$1", "$p0", "$limit", "?",
    ":p0", "@p0", "%(p0)s", "%s", "{0}", "' OR '1'='1", "' OR 1=1 --", "1=1) OR (1=1", "') OR ('1'='1",
    "' OR TRUE OR '",
    "' UNION SELECT table_name FROM information_schema.tables --", "' UNION ALL SELECT 1, 2 --", "'; DROP TABLE x; --",
    "'; COPY marts.fct_sales TO '/tmp/x.csv'; --", "'; ATTACH '/tmp/x.db'; --", "'; PRAGMA database_list; --",
    "read_csv('/etc/passwd')", "read_text('/etc/hostname')", "(SELECT secret FROM duckdb_secrets())",
    "query('SELECT 1')",
    "' || (SELECT count(*) FROM marts.fct_sales) || '", "'||current_setting('memory_limit')||'", "CASE WHEN 1=1 THEN 1",
    "' AND 1=0 --", "' HAVING 1=1 --", "x' LIKE '%", "%' ESCAPE '", "!", "!!", "!%", "!_", "%", "_", "%%", "\\%", "\\_",
    "E'\\x27'", "U&'\\0027'", "chr(39)", "0x27", "$$", "$tag$", "NULL", "null", "true", "FALSE", "now()", "1e1000",
)  # fmt: skip

TEMPLATES = (
    "{{7*7}}", "{{ 7*7 }}", "{{7*'7'}}", "{%set x=7*7%}{{x}}", "{% for i in range(9) %}x{% endfor %}", "{# x #}", "{{",
    "}}", "{%", "%}", "{{ cycler.__init__.__globals__ }}", "{{ self.__class__.__mro__ }}", "{{ config }}",
    "{{ var('x') }}",
    "{{ Dimension('customer__gender') }}", "{{ Metric('line_count') }}", "{{ TimeDimension('metric_time', 'day') }}",
    "${7*7}", "#{7*7}", "<%= 7*7 %>", "@(7*7)", "[[7*7]]", "*{7*7}", "%{7*7}", "{7*7}", "{0.__class__}", "{x!r:>{w}}",
    "$(id)", "`id`", "<script>alert(7*7)</script>", "=7*7", "+7*7", "@SUM(7*7)", "\\N", "\\u0027", "&apos;", "%27",
)  # fmt: skip

UNICODE = (
    "é", "e\u0301", "ﬁ", "ß", "SS", "İ", "ı", "K", "\u212a", "Å", "\u212b", "ʹ", "＇", "‘", "’", "′", "ʼ", "＂", "“",
    "；",
    "－－", "／＊", "\u202e", "\u202d", "\u200b", "\u200d", "\ufeff", "\u2028", "\u2029", "\u0085", "\u00a0", "\u3000",
    "\U0001d54a\U0001d53c", "💣", "👨‍👩‍👧", "🇩🇪", "\U0010ffff", "\ufffd", "\ufffe", "\ue000", "ﷺ", "ͣ" * 40,
    "А" * 3, "Ａ",
)  # fmt: skip

CONTROL = (*map(chr, (*range(1, 32), 127, 128, 155, 159)), "\r\n", "\x1b[2J", " ", "  ", "\t\t", "")

NUMBERS = (
    "0", "-0", "1", "-1", "00", "1e30", "1E400", "-1e400", "NaN", "nan", "Infinity", "-Infinity", "inf", "0x41", "0b1",
    "1_000", "1,000", "1.", ".1", "+1", " 1", "١", "１", "²", "9" * 400, "9223372036854775808", "-9223372036854775809",
    "2147483648", "0.1", "1e-400", "1/0", "TRUE", "2019-01-01", "2019-02-30", "0000-00-00", "99999-01-01", "1/1/2019",
)  # fmt: skip

CORPORA = (SQL, TEMPLATES, UNICODE, CONTROL, NUMBERS)


def texts(count: int, *, seed: int, pieces: Sequence[str] = ()) -> Iterator[str]:
    """That many hostile texts: every entry of the corpora, then their mixtures; `pieces` are innocent ones among them.

    None holds a NUL or half a character, which are refused and tested where that is.
    """
    every = [text for corpus in CORPORA for text in corpus]
    draw = random.Random(seed)
    for number in range(count):
        yield every[number] if number < len(every) else _mixture(draw, every, pieces)


def _mixture(draw: random.Random, every: Sequence[str], pieces: Sequence[str]) -> str:
    match draw.randrange(6):
        case 0:
            return "".join(chr(_code(draw)) for _ in range(draw.randrange(1, 40)))
        case 1 if pieces:
            whole = draw.choice(pieces)
            start = draw.randrange(len(whole))
            return whole[start : draw.randrange(start, len(whole)) + 1]
        case 2 if pieces:
            return draw.choice(pieces) + draw.choice(every)
        case 3:
            return draw.choice(every) * draw.choice((2, 3, 100))
        case _:
            return "".join(draw.choice(every) for _ in range(draw.randrange(2, 5)))


def _code(draw: random.Random) -> int:
    """Any character that a text may hold: mostly a common one."""
    code = draw.randrange(1, 0x250) if draw.random() < 0.7 else draw.randrange(1, 0x110000)
    return code if not 0xD800 <= code <= 0xDFFF else 0xFFFD
