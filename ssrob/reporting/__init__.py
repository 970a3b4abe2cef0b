"""Figures, tables and the page about a study, and what is published of it.

May import: `analysis`, `scheduling` and what they may.
"""
