"""Errors that the user can mend: their message is all that is shown, in a terminal and in a notebook alike."""


class UserError(Exception):
    """What is wrong, and what would be right, in one message; a traceback would only hide it."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback, and papermill after it."""
        return [f"{type(self).__name__}: {self}"]


class Diverged(UserError, FloatingPointError):
    """A loss that is no longer a number."""


class BadValue(UserError, ValueError):
    """A value that cannot be used: a knob, a seed, a device."""
