"""Self-supervision and robustness: how SSL changes robustness to l2, l-inf and natural corruptions."""

__version__ = "0.1.0"
