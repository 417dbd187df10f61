"""What the commands are made of: networks, data, training, figures."""


class UserError(Exception):
    """A mistake that its user can mend: told in one line, without a traceback."""
