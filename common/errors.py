"""The exceptions meant for the user: one line that says what was wrong and what would work."""


class InputError(Exception):
    """Bad input: a flag, a file or a machine that cannot do what was asked. The script prints it and exits with 2."""


class Diverged(InputError):
    """A loss became NaN or infinite: which one, with round and epoch, and the flags to lower."""

    def __init__(self, what: str, lower: str):
        super().__init__(what, lower)  # both, as it is pickled between processes
        self.what, self.lower = what, lower

    def __str__(self) -> str:
        return f"{self.what}; lower {self.lower} and start under another --expt"


class LabelsNeeded(InputError):
    """The run waits for labels; the message names the file of images. Not a fault: the script exits with 3."""


class Damaged(InputError):
    """A file that does not hold what was written to it; the message names the file and what to delete."""


def reason(error: BaseException) -> str:
    """The message of a foreign exception, on one line of at most 200 characters, to quote in ours."""
    return " ".join(str(error).split())[:200] or type(error).__name__
