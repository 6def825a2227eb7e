"""Evaluations as jobs: models asked by many workers, and what is made of their answers."""
