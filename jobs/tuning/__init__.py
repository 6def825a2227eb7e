"""Searches with Ray Tune: what their driver and their trials are made of."""
