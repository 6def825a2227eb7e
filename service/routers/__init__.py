"""HTTP routers: each translates requests into one lifecycle call and back."""
