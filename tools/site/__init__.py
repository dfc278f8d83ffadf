"""Makes the documentation site what no page can be written by hand: references, pictures, Markdown beside each page."""
