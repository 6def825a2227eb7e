"""The embedded one-machine stack, the demo, and what a cluster needs."""
