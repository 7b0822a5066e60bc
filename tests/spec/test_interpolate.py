from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.spec.interpolate import BadTemplate, Variables

VALUES = {"V": "v", "EMPTY": "", "A": "a", "dollar": "$V"}

TABLE = [
    ("plain", "plain"),
    ("$V", "v"),
    ("${V}", "v"),
    ("x${V}y$V.z", "xvyv.z"),
    ("$$V", "$V"),
    ("$$$V", "$v"),
    ("$${V}", "${V}"),
    ("$", "$"),
    ("a$1$ b$-", "a$1$ b$-"),
    ("$NO", ""),
    ("${NO:-d}", "d"),
    ("${EMPTY:-d}", "d"),
    ("${V:-d}", "v"),
    ("${NO-d}", "d"),
    ("${EMPTY-d}", ""),
    ("${V:+r}", "r"),
    ("${EMPTY:+r}", ""),
    ("${NO:+r}", ""),
    ("${EMPTY+r}", "r"),
    ("${NO+r}", ""),
    ("${V:?e}", "v"),
    ("${EMPTY?e}", ""),
    ("${NO:-}", ""),
    ("${NO:-${A}}", "a"),
    ("${NO:-${ALSO:-${A}b}c}", "abc"),
    ("${NO:-$$x}", "$x"),
    ("${NO:-{}}", "{}"),
    ("${V:-${NO:?not asked}}", "v"),
    ("$dollar", "$V"),
    ("http://${NO:-localhost:80}/?q", "http://localhost:80/?q"),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_forms(text: str, expected: str) -> None:
    assert Variables(VALUES).substitute(text) == expected


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("a${", 1, "no variable name after '${', expected letters, digits and '_'"),
        ("a${V", 1, "a '${' without its '}'"),
        ("a${NO:-x", 1, "a '${' without its '}'"),
        ("${V:x}", 3, "':' after '${V', expected '}' or one of :- :? :+ - ? +"),
        ("..${NO?}", 2, "the required variable NO is not set"),
        ("..${EMPTY:?fill $V}", 2, "the required variable EMPTY is empty: fill v"),
        ("${A:-" * 60 + "}" * 60, 250, "'${' nested deeper than 50"),
    ],
)
def test_faults(text: str, offset: int, message: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        Variables(VALUES).substitute(text)
    assert (caught.value.offset, caught.value.message) == (offset, message)


def test_unset_names_are_gathered_once_and_only_where_asked() -> None:
    variables = Variables(VALUES)
    variables.substitute("$NO $NO ${ALSO} ${V:-$HIDDEN} ${OPT:-d}")
    assert variables.unset == ["NO", "ALSO"]


@given(st.text())
def test_escaping_gives_the_text_back(text: str) -> None:
    assert Variables({}).substitute(text.replace("$", "$$")) == text


@given(st.text(alphabet="${}:-?+AV$ x", max_size=40))
def test_anything_gives_text_or_a_place_inside(text: str) -> None:
    offset = 0
    try:
        Variables(VALUES).substitute(text)
    except BadTemplate as error:
        offset = error.offset
    assert 0 <= offset <= len(text)


@given(st.text(alphabet=string.ascii_letters + "_", min_size=1), st.text())
def test_a_value_is_taken_as_it_is(name: str, value: str) -> None:
    variables = Variables({name: value})
    assert variables.substitute("<${" + name + "}>") == f"<{value}>"
    assert variables.substitute("${" + name + ":-other}") == (value or "other")
