from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import SpecError
from deploykit.spec.dotenv import parse, read

TABLE = [
    ("", {}),
    ("A=1\nB=2", {"A": "1", "B": "2"}),
    ("\n# note\n  A=1  # comment\r\nB=\n", {"A": "1", "B": ""}),
    ("A=a#b", {"A": "a#b"}),
    ("export A=x\nB: y\nC = z", {"A": "x", "B": "y", "C": "z"}),
    ("A='$H \\n # x' # c", {"A": "$H \\n # x"}),
    ("A='it\\'s'", {"A": "it's"}),
    ('A="q \\n\\t\\"$H\\" \\$H \\\\"', {"A": 'q \n\t"home" $H \\'}),
    ('A="two\nlines"\nB=1', {"A": "two\nlines", "B": "1"}),
    ("A=1\nB=$A-${C:-d}-${H}", {"A": "1", "B": "1-d-home"}),
    ("A=file\nB=$A", {"A": "file", "B": "file"}),
    ("H\nNONE\nB=1", {"H": "home", "B": "1"}),
    ("A=1\nA=2", {"A": "2"}),
    ("A.b-c=1", {"A.b-c": "1"}),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_forms(text: str, expected: dict[str, str]) -> None:
    assert parse(text, {"H": "home"}) == expected


def test_surroundings_win_in_references() -> None:
    assert parse("H=file\nB=$H", {"H": "home"}) == {"H": "file", "B": "home"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\n=2", ".env:2:1: expected NAME=VALUE, not '=2'"),
        ("a b", ".env:1:1: expected NAME=VALUE, not 'a b'"),
        ("A=1\nB='x", ".env:2:3: the quote ' is not closed"),
        ('A="x"y', ".env:1:6: unexpected 'y' after the closing quote"),
        ("A=${B:?no}", ".env:1:3: the required variable B is not set: no"),
    ],
)
def test_faults(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, {})
    assert caught.value.message == message


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not there"):
        read(tmp_path / "no", {})


def test_raw_takes_values_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("A='$H' # x\n")
    assert read(tmp_path / "e", {"H": "h"}, raw=True) == {"A": "'$H' # x"}


@given(
    st.dictionaries(
        st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,8}\Z"),
        st.text(alphabet=st.characters(exclude_characters="\r\\'", exclude_categories=["Cs"])),
    )
)
def test_single_quotes_keep_everything(values: dict[str, str]) -> None:
    assert parse("\n".join(f"{name}='{value}'" for name, value in values.items()), {}) == values


@given(st.text())
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    message = ".env:"
    try:
        parse(text, {})
    except SpecError as error:
        message = error.message
    assert message.startswith(".env:")
