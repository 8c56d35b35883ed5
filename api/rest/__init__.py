"""REST: parse the request, call the semantic layer, render the answer."""
