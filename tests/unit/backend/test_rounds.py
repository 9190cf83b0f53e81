from pytest_mxq.backend.rounds import showing_rounds


def test_rounds_are_told_after_they_were_judged_and_the_line_goes_at_the_end() -> None:
    events: list[str] = []

    def inspect() -> str | None:
        events.append("judged")
        return "hot"

    def progress(label: str, done: int, total: int) -> None:
        events.append(f"{label} {done}/{total}")

    with showing_rounds(progress, "demo nvfp4: round", inspect, 2) as inspected:
        assert [inspected() for _ in range(3)] == ["hot"] * 3
    told = [event.removeprefix("demo nvfp4: round ") for event in events]
    assert told == ["0/2", "judged", "1/2", "judged", "1/2", "judged", "1/2", "2/2"]
