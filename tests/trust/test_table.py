"""docs/trust.md lists the faults that are injected, with the verdicts that are compared."""

from pathlib import Path

from trust_faults import FAULTS

TABLE = Path(__file__).parents[2] / "docs" / "trust.md"


def read_rows() -> list[tuple[str, str, str, str]]:
    """Return what each row of the table injects, where, its verdict, and why."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")][1:]
    return [(injected, layer, verdict, why) for _, injected, layer, _, verdict, why in cells]


def test_the_document_has_the_rows_that_are_injected() -> None:
    expected = [
        (
            fault.injected,
            fault.layer.value,
            f"{fault.expected}{' (gap)' if fault.hole else ''}",
            f"not seen by images: {fault.why}" if fault.unseen else fault.why,
        )
        for fault in FAULTS
    ]
    assert read_rows() == expected, "run: python tools/trust_table.py"


def test_each_fault_is_named_once_and_fits_into_a_row() -> None:
    names = [fault.injected for fault in FAULTS]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
    assert not [fault for fault in FAULTS if "|" in fault.injected + fault.why or not fault.why]


def test_what_images_do_not_show_passes_and_nothing_else_is_called_so() -> None:
    assert {fault.expected.value for fault in FAULTS if fault.unseen} == {"pass"}
