"""The analysis of a comparison as pure functions: from scores of answers to report and plots."""
