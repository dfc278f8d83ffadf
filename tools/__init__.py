"""Programs that make what the package holds; not part of the wheel."""
