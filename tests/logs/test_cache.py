from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.cache import HistoryCache, file_name
from cbsbayes.logs.history import history_from_rows

ROWS = [
    (0.0, {"b": math.nan, "a": 0.1}),
    (2.5, {"b": math.inf, "step": 4.0}),
    (9.0, {"b": -math.inf, "name/with.dots and spaces": 5e-324}),
]


@pytest.fixture
def cache(tmp_path) -> HistoryCache:
    return HistoryCache(tmp_path / "seed=1" / "here")


@pytest.mark.parametrize("rows", [ROWS, [], [(1.0, {})]])
def test_what_was_kept_comes_back(cache, rows):
    history, _ = history_from_rows(rows)
    cache.store("run", "v1", history, ("a note", "ünïcode"))
    kept, notes = cache.load("run", "v1")
    assert_frame_equal(kept, history, check_exact=True)
    assert notes == ("a note", "ünïcode")


def test_another_version_is_not_given(cache):
    history, _ = history_from_rows(ROWS)
    assert cache.load("run", "v1") is None
    cache.store("run", "v1", history, ())
    assert cache.load("run", "v2") is None
    cache.store("run", "v2", history, ())
    assert cache.load("run", "v1") is None
    assert cache.load("run", "v2") is not None
    assert len(list(cache.folder.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_what_is_no_history_is_not_given(cache, content):
    cache.store("run", "v1", history_from_rows(ROWS)[0], ())
    (path,) = cache.folder.iterdir()
    path.write_bytes(content)
    assert cache.load("run", "v1") is None
    pd.DataFrame({"x": [1]}).to_parquet(path)
    assert cache.load("run", "v1") is None


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_safe_and_distinct(one, other):
    assert Path(file_name(one)).name == file_name(one)
    assert not file_name(one).startswith(".")
    assert (file_name(one) == file_name(other)) == (one == other)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CBSDataError, match=r"cache .*file.* cannot be written"):
        HistoryCache(tmp_path / "file" / "below")
