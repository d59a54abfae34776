"""Host ranges: as Ansible expands them, or refused with a sentence."""

from __future__ import annotations

from string import ascii_letters

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fazai.inventory.ranges import HOSTS_MAX, expand_hosts

STEADY = settings(deadline=None, derandomize=True)

EXPANDED = [
    ("fw-01", ["fw-01"], None),
    ("fw-[01:05:2]", ["fw-01", "fw-03", "fw-05"], None),
    ("fw-[08:11]x", ["fw-08x", "fw-09x", "fw-10x", "fw-11x"], None),
    ("fw-[8:11]", ["fw-8", "fw-9", "fw-10", "fw-11"], None),
    ("[a:c]", ["a", "b", "c"], None),
    ("[y:B]", ["y", "z", "A", "B"], None),
    ("[a:g:3]", ["a", "d", "g"], None),
    ("r[1:2]-[a:b]", ["r1-a", "r1-b", "r2-a", "r2-b"], None),
    ("h[:2]", ["h0", "h1", "h2"], None),
    ("h[0:0]", ["h0"], None),
    ("fw-01:2222", ["fw-01"], 2222),
    ("fw-[1:2]:22", ["fw-1", "fw-2"], 22),
    ("10.0.0.[1:2]:830", ["10.0.0.1", "10.0.0.2"], 830),
    ("2001:db8::1", ["2001:db8::1"], None),
    ("[2001:db8::1]:22", ["2001:db8::1"], 22),
    ("[2001:db8::1]", ["2001:db8::1"], None),
    ("2001:db8::[1:3]", ["2001:db8::1", "2001:db8::2", "2001:db8::3"], None),
    ("::1", ["::1"], None),
]


@pytest.mark.parametrize(("pattern", "names", "port"), EXPANDED)
def test_expand(pattern: str, names: list[str], port: int | None) -> None:
    assert expand_hosts(pattern) == (names, port)


@STEADY
@given(st.integers(0, 10**6), st.integers(0, 300), st.integers(1, 50), st.integers(1, 9))
def test_numbers(begin: int, span: int, step: int, width: int) -> None:
    first, last = str(begin), str(begin + span)
    if width > len(last):
        first, last = first.zfill(width), last.zfill(width)
    names, port = expand_hosts(f"h[{first}:{last}:{step}]")
    assert port is None
    assert [int(name[1:]) for name in names] == list(range(begin, begin + span + 1, step))
    if first.startswith("0") and len(first) > 1:
        assert {len(name) for name in names} == {1 + len(last)}


@STEADY
@given(st.sampled_from(ascii_letters), st.sampled_from(ascii_letters), st.integers(1, 60))
def test_letters(begin: str, end: str, step: int) -> None:
    wanted = ascii_letters[ascii_letters.index(begin) : ascii_letters.index(end) + 1 : step]
    if wanted:
        assert expand_hosts(f"x[{begin}:{end}:{step}]")[0] == [f"x{letter}" for letter in wanted]
    else:
        with pytest.raises(ValueError, match="holds nothing"):
            expand_hosts(f"x[{begin}:{end}:{step}]")


@STEADY
@given(st.text(alphabet="[]:0123456789abzAZ-.é x", max_size=16))
def test_anything_expands_or_is_refused(text: str) -> None:
    try:
        names, port = expand_hosts(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017 (both ways out are right)
    else:
        assert 0 < len(names) <= HOSTS_MAX
        assert port is None or 0 < port < 65536
        assert not any(set(name) & set("[] ,") for name in names)
