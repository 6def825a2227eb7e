"""Measurements of models, adapters and token counts that speak for or against hyperbolic space."""
