"""The fixtures of a gate test. Both are inert outside the workload: the workload runs on several arms and prompts."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

NO_FORMATS = "no formats: add --mxq-formats=mxfp8,nvfp4 (or --mxq-refresh)"


class OutsideWorkloadError(RuntimeError):
    """A gate fixture was used outside the body of the test."""


class MxqPipeline:
    """The pipeline of the arm that is being run.

    Inside the body of the test, calling it calls the pipeline with the recipe's arguments; ``pipe`` is the pipeline
    itself. Elsewhere there is no arm, and using it raises.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request
        self.bound: Any = None

    def _arm(self) -> Any:
        if self.bound is None:
            raise OutsideWorkloadError(
                "mxq_pipeline was used outside the body of the test; the body is the workload and runs on the BF16 and "
                "on the quantized arm, so whatever it needs of the pipeline belongs into the body"
            )
        return self.bound

    def __call__(self, prompt: Any, **overrides: Any) -> Any:
        """Call the pipeline; any of its arguments may be given but ``generator`` and ``output_type``."""
        return self._arm()(prompt, **overrides)

    @property
    def pipe(self) -> Any:
        """The raw pipeline of the current arm."""
        return self._arm().pipe


class InertPrompt:
    """Stands for the prompt outside the body of the test; every use raises."""

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise OutsideWorkloadError(
            "mxq_prompt was used outside the body of the test; the body runs once for every prompt (a list of prompts "
            "where batch_size is above 1), and only there it is a text"
        )

    __str__ = __len__ = __iter__ = __getitem__ = __contains__ = __add__ = __radd__ = __mod__ = __format__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python and pytest look for protocols; that is no use of the prompt
            raise AttributeError(name)
        self._refuse()

    def __repr__(self) -> str:
        """Something to read in a traceback."""
        return "<mxq_prompt outside the workload>"


@pytest.fixture
def mxq_pipeline(request: pytest.FixtureRequest) -> MxqPipeline:
    """Give the pipeline of the current arm; the test calls it with the prompt and returns the result."""
    if not hasattr(request, "param"):
        if request.config.pluginmanager.has_plugin("mxq-session"):  # it gives the argument its parameter
            pytest.fail("ask for mxq_pipeline as an argument of a test marked mxq", pytrace=False)
        pytest.skip(NO_FORMATS)
    return MxqPipeline(request)


@pytest.fixture
def mxq_prompt() -> Any:
    """Give the prompt (a list of prompts where batch_size is above 1)."""
    return InertPrompt()
