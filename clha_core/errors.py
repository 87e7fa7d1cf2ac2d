"""The one exception that users are meant to read."""


class UserError(Exception):
    """A problem that the user can mend: the message says what is wrong and what to do.

    The command line prints it without a traceback and exits with status 1; a Prefect task fails with it as its
    cause.
    """
