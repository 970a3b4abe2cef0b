"""Devices: which one, how it computes, who holds it.

May import: `config`.
"""
