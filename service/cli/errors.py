"""What stops a command, as the user reads it."""


class CliError(Exception):
    """A command cannot go on; the message says why and what to do, without a stack trace."""
