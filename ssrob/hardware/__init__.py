"""Devices: which one, how it computes, which job holds it.

May import: `config`, `storage`.
"""
