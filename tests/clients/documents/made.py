"""PDFs that tests make: with text, without, hostile."""

from __future__ import annotations

from collections.abc import Sequence

from fpdf import FPDF


def made_pdf(pages: Sequence[str], *, compress: bool = True) -> bytes:
    """A PDF with these texts on its pages; an empty text is a page with a line drawn on it."""
    pdf = FPDF()
    pdf.set_compression(compress)
    pdf.set_font("Helvetica", size=11)
    for text in pages:
        pdf.add_page()
        if text:
            pdf.multi_cell(0, 6, text)
        else:
            pdf.line(10, 10, 100, 100)
    return bytes(pdf.output())
