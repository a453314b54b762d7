"""What ends `tokenyard up`: one sentence that says what is wrong and what to do."""


class StackFailed(Exception):
    """The stack cannot start or go on; the message is for the operator."""
