"""Training losses under one contract: ``loss(model, x, task) -> (B,)``; their rows are in `registry/losses.py`.

May import: `planning` and what lies below it.
"""
