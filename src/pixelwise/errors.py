"""The errors that a person can mend, told apart from our own bugs."""


class PixelwiseError(Exception):
    """Base of all errors that pixelwise raises on purpose. `exit_code`: of the command."""

    exit_code = 1


class InputError(PixelwiseError, ValueError):
    """Something that was given is not usable: a file, a value, an option.

    The message is one line: the file or the value, what is allowed, the remedy. `problems` holds
    one such line for each fault where several were found at once; the commands print them all and
    exit with code 2.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
