"""Data sets: sources, preparation into memory-mappable arrays, splits and on-device batches.

This file imports nothing, so that configs are checked without torch.
"""
