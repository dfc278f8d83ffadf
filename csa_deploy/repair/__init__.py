"""The repair stage: exact repairs for the scopes that count, as a part of the pipeline."""
