"""SVG charts of the page; colours and fonts come from its style sheet."""
