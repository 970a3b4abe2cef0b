"""Attacks: geometries, PGD for training, attacks for evaluation and the sweep. Imports no torch itself."""
