"""Comparisons of methods: what their driver is made of."""
