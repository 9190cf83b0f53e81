import pytest

from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.settings import CaseSettings


@pytest.mark.parametrize(
    ("prompts", "batch", "chunks"), [(8, 8, (0,)), (8, 1, (0, 7)), (1, 1, (0,)), (9, 4, (0,)), (2, 1, (0, 1))]
)
def test_the_drift_check_generates_two_images_where_there_are_two(
    prompts: int, batch: int, chunks: tuple[int, ...]
) -> None:
    settings = CaseSettings(model="demo", batch_size=batch)
    case = Case(recipe=DEMO, name="x", settings=settings, prompts=DEMO.prompts[:prompts])
    assert case.drift_check_chunks == chunks
