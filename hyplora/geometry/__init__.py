"""Hyperbolic geometry: the Lorentz model and the numerics under it."""
