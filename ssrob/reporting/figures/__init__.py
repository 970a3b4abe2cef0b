"""Figures: one function each, from tables to a matplotlib figure. They read tables, never checkpoints or images."""
