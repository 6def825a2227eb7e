"""The plots of analyses."""
