"""One exception for what a user can mend: it carries a sentence for a person, and the command line exits with 2."""


class UserError(ValueError):
    """A user's mistake or a bad input; the message says what, where, and what to do."""
