"""One data object, shown on the console, as JSON and as a page."""
