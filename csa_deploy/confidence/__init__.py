"""What the tool could get wrong without anyone noticing, what is done against it, and what shows that it is.

``facts/`` holds it as data, ``tests.json`` which test shows what. ``docs/kit.md`` describes both.
"""
