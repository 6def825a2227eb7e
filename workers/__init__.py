"""What each training rank does, from rows to checkpoint; runs with or without Ray."""
