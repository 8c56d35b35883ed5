"""Questions about a user's own PDFs: read in a limited process, searched, answered with document, page and quote."""
