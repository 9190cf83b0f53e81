from pytest_mxq.planning.settings import split_names


def test_names_are_split_at_commas_and_spaces_and_counted_once() -> None:
    assert split_names(" a,b  c,,a ") == ("a", "b", "c")
    assert split_names(None) == ()
