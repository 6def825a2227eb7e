"""The analysis of a search as pure functions: from records of trials to report and plots."""
