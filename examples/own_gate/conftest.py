"""A gate of one's own: the mean absolute error of pixels, 0 to 255.

It is a gate like the built-in ones: bounds by format, ``worst=``, the table, the report, refresh and ``--mxq-strict``.
"""

from pytest_mxq import AccuracyGate, Scale


def mean_absolute_error(reference, other):
    """Return one value an image: the mean of ``|other - reference|`` over its uint8 pixels (N, 3, H, W)."""
    difference = (other.images.float() - reference.images.float()).abs()
    return difference.mean(dim=(1, 2, 3)).tolist()


MAE = AccuracyGate(
    name="mae",
    summary="bound of the mean absolute error of pixels (0 to 255) against BF16, of the worst image",
    largest=64.0,
    scale=Scale(higher_is_better=False, digits=2),
    score=mean_absolute_error,
    default_worst=lambda mean: 2 * mean,
    drift_limit=lambda bound: bound.mean / 4,
)


def pytest_mxq_gates():
    return [MAE]
