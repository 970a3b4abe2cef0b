"""What is left of a study, what it costs, in which order it is worth having, and whether it can start here.

May import: `storage`, `data`, `hardware` and what they may.
"""
