"""For tests of formats, models, gates, and of plugins: machines, a backend without torch, and checks.

A project with gates of its own tries them without a GPU and without torch. In its conftest.py:

    from pytest_mxq.testing import B200, fake_machine

    def pytest_mxq_machine():
        return fake_machine(B200)

What the fake backend generates, scores and times is written in a file ``behaviour.json`` in the working directory
(`Behaviour`), so that a test may change it from one run to the next; what it did stands in ``backend.log``.
"""

from pytest_mxq.testing.behaviour import Behaviour
from pytest_mxq.testing.checks import check_format, check_gate, check_model
from pytest_mxq.testing.devices import B200, CPU, H100, RTX_PRO_6000
from pytest_mxq.testing.fake_machine import FakeBenchmark, fake_machine
from pytest_mxq.testing.fakes import FakeBackend, FakeOutputs, FakeScorer

__all__ = [
    "B200",
    "CPU",
    "H100",
    "RTX_PRO_6000",
    "Behaviour",
    "FakeBackend",
    "FakeBenchmark",
    "FakeOutputs",
    "FakeScorer",
    "check_format",
    "check_gate",
    "check_model",
    "fake_machine",
]
