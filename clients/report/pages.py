"""A report as Markdown, and what that becomes as a web page and as a PDF."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path

from fpdf import FPDF, FontFace, TextStyle
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from clients.literal import literal_inside
from clients.report.charts import picture, sparkline
from clients.report.content import Report, Series

_BREAK = "<!-- appendix -->"
# They have the letters of most scripts that values are written in; matplotlib brings them.
_FONT, _MONO = "DejaVu", "DejaVuMono"
_FONT_FILES = (
    (_FONT, "", "DejaVuSans.ttf"),
    (_FONT, "B", "DejaVuSans-Bold.ttf"),
    (_MONO, "", "DejaVuSansMono.ttf"),
)
_POINTS, _IMAGE_PX, _LINES = 7.5, 500, 205
_STYLES = {
    "h1": TextStyle(font_family=_FONT, font_style="B", font_size_pt=14, color="#1c1c1c", t_margin=0, b_margin=1),
    "h2": TextStyle(font_family=_FONT, font_style="B", font_size_pt=9, color="#2456a6", t_margin=1.5, b_margin=0.5),
    "code": FontFace(family=_MONO, size_pt=6.5),
    "pre": TextStyle(font_family=_MONO, font_size_pt=6.5, t_margin=1),
    "p": TextStyle(font_family=_FONT, t_margin=1),
}


class Format(StrEnum):
    """What a report can be."""

    MD = "md"
    HTML = "html"
    PDF = "pdf"


def rendered(report: Report, format_: Format) -> bytes:
    """The report as a file's content."""
    match format_:
        case Format.MD:
            return _markdown(report, sparkline).encode()
        case Format.HTML:
            return _web_page(report).encode()
        case Format.PDF:
            return _pdf(report)


def _markdown(report: Report, draw: Callable[[Series], str]) -> str:
    """The one text that all formats are made of."""
    template = _templates().get_template("report.md.j2")
    return template.render(report=report, drawn=lambda series: Markup(draw(series)))  # noqa: S704 - no letter from outside


@cache
def _templates() -> Environment:
    """The templates; whatever is put into one is shown letter by letter."""
    environment = Environment(
        loader=PackageLoader("clients.report"), autoescape=True, finalize=_literal, undefined=StrictUndefined
    )
    environment.filters["cell"] = _literal
    return environment


def _literal(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup(literal_inside(str(value)))  # noqa: S704 - Markdown's escape


def _as_image(series: Series) -> str:
    return f"![{literal_inside(series.label)}]({picture(series)})"


def _parts(report: Report) -> tuple[str, str]:
    """The page and its appendix, as HTML in which no tag comes from a text."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    first, _, appendix = _markdown(report, _as_image).partition(_BREAK)
    return reader.render(first), reader.render(appendix)


def _web_page(report: Report) -> str:
    first, appendix = (Markup(part) for part in _parts(report))  # noqa: S704 - as above
    title = f"Marketing report {report.period.name}"
    return _templates().get_template("page.html.j2").render(title=title, first=first, appendix=appendix)


def _pdf(report: Report) -> bytes:
    pdf = FPDF(format="A4")
    pdf.set_title(f"Marketing report {report.period.name}")
    pdf.set_margins(12, 10)
    pdf.set_auto_page_break(auto=True, margin=8)
    fonts = _fonts()
    for family, style, file in _FONT_FILES:
        pdf.add_font(family, style, fonts / file)
    for part in _parts(report):
        pdf.add_page()
        pdf.set_font(_FONT, size=_POINTS)
        pdf.set_draw_color(_LINES)
        html = part.replace('style="text-align:', 'align="').replace("<img ", f'<img width="{_IMAGE_PX}" ')
        pdf.write_html(html, font_family=_FONT, tag_styles=_STYLES, table_line_separators=True)
    return bytes(pdf.output())


def _fonts() -> Path:
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf"
