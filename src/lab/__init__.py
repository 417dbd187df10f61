"""What the commands are made of: networks, data, training, figures."""

import os

# read when torch is imported: threads that wait then sleep, and leave the cores of a shared machine to those at work
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class UserError(Exception):
    """A mistake that its user can mend: told in one line, without a traceback."""
