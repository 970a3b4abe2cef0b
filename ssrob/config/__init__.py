"""A study's config: YAML in, a checked `Study` out, or an error that says where, what was found and what is allowed.

May import: `registry`. Imports no torch.
"""
