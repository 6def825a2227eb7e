"""The report on analyses of a model as pure functions: from numbers to a page with plots."""
