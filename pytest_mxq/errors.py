"""Errors that reach the user: each names the thing, the value, what is allowed and the next step."""


class MxqError(Exception):
    """Base of every error that pytest-mxq raises for a user to read."""


class UnknownNameError(MxqError):
    """A format, model, gate or setting that is not registered; the message lists the choices."""


class CaseFaultError(MxqError):
    """A fault of one test (marker, bound, workload); it fails that test alone, before anything is built."""


class WeightsUnavailableError(MxqError):
    """A model that cannot be had here: its licence, the network or the Hub's cache are in the way."""


class PromptsUnavailableError(MxqError):
    """A named prompt set that can be had neither from the Hub nor from its cache."""


class BaselineError(MxqError):
    """A stored baseline that does not serve.

    Args:
        problem: what is wrong.
        steps: what to do about it, as it stands in the message behind the problem.
        command: a command that leads out of it, better than to measure again; None: no other is known.
    """

    def __init__(self, problem: str, *, steps: str = "", command: str | None = None) -> None:
        super().__init__(problem + steps)
        self.problem = problem
        self.command = command


class BaselineMissingError(BaselineError):
    """No stored baseline for this case on this kind of device."""


class BaselineInvalidError(BaselineError):
    """A stored baseline that cannot be used: truncated, altered, newer schema, impossible number."""


class ReportInvalidError(MxqError):
    """A report that cannot be read: not JSON, of another schema version, or altered."""
