import pytest

from sslkit.dashboard.names import shortened


@pytest.mark.parametrize("most", range(2, 25))
def test_begin_and_end_are_kept_and_as_much_as_fits(most):
    text = "Balinese/character07"
    short = shortened(text, most)
    if most >= len(text):
        assert short == text
        return
    begin, end = short.split("…")
    assert len(short) == most
    assert text.startswith(begin)
    assert text.endswith(end)
    assert len(end) >= len(begin)
    assert end


def test_names_that_differ_at_their_end_still_differ():
    names = [f"Balinese/character{i:02}" for i in range(24)]
    assert len({shortened(name, 13) for name in names}) == 24


def test_the_length_is_any_that_is_given():
    assert shortened("abcdefgh", 50, lambda text: 10 * len(text)) == "a…fgh"
    assert shortened("Acura Integra Type R 2001", 9) == "Acu…2001"  # no space at the cut
    assert shortened("abc", 0) == "…c"
    assert shortened("", 0) == ""
