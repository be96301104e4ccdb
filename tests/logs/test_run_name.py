"""Run names, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_name import PHASES, RunName, build_name, parse_name

LABEL = st.from_regex(r"[A-Za-z][A-Za-z0-9.+-]{0,11}", fullmatch=True)
COUNT = st.integers(1, 10**6)


def test_readme_name():
    assert parse_name("cbs_p1_olmo1b_omi_np128_nr8") == RunName("p1", 128, 8, "olmo1b", "omi")


@pytest.mark.parametrize("suffix", ["ep4_lr1e-6_mbs64_cr0.2_s3", "seed3_cr0.2_mbs64_lr1e-06_ep4",
                                    "lr0.000001_s3_ep4_cr0.2_mbs64"])
def test_suffixes_in_any_order(suffix):
    parsed = parse_name(f"cbs_p1_olmo1b_omi_np128_nr8_{suffix}")
    assert parsed == RunName("p1", 128, 8, "olmo1b", "omi", 4, 1e-6, 64, 0.2, 3)


@pytest.mark.parametrize(("name", "phase", "model"), [
    ("cbs_p4_math_olmo1b_omi_np8_nr8", "p4_math", "olmo1b"),
    ("cbs_p4_rpp_np8_nr8", "p4_rpp", ""),
    ("cbs_p4_math_omi_np8_nr8", "p4", "math"),  # one label cannot be model and dataset
    ("cbs_p7x_np8_nr8", "p7x", ""),
])
def test_phases_with_underscores(name, phase, model):
    parsed = parse_name(name)
    assert (parsed.phase, parsed.model) == (phase, model)


@pytest.mark.parametrize("name", [
    "", "debug", "cbs_p1_np32", "cbs_p1_nr8", "cbs_np8_nr8", "cbs_p1_olmo1b_np8_nr8",
    "cbs_p1_np0_nr8", "cbs_p1_np8_nr0", "cbs_p1_np8_nr8_np16", "cbs_p1_np8_nr8_s1_seed2",
    "cbs_p1_np8_nr8_wd0.1", "cbs_p1_np8_nr8_lr0", "cbs_p1_np8_nr8_lr1e999", "cbs_p1_np-8_nr8",
    "cbs_p1_np8_nr8\n", "xcbs_p1_np8_nr8", "cbs_p1__omi_np8_nr8", "cbs_p1_np" + "9" * 5000 + "_nr8",
    "cbs_p1_np٣_nr8", "cbs_p1_a b_omi_np8_nr8",
])
def test_other_names_are_not_read(name):
    assert parse_name(name) is None


@given(st.text())
def test_any_text_is_read_or_refused(text):
    assert parse_name(text) is None or parse_name(text).n_prompts > 0


@given(phase=st.sampled_from(PHASES), n_prompts=COUNT, n_rollouts=COUNT,
       labels=st.one_of(st.just(("", "")), st.tuples(LABEL, LABEL)),
       ppo_epochs=st.none() | COUNT, mini_batch_prompts=st.none() | COUNT,
       learning_rate=st.none() | st.floats(1e-12, 1e12), clip_ratio=st.none() | st.floats(0, 10),
       seed=st.none() | st.integers(0, 10**6))
def test_build_and_parse_round_trip(labels, **fields):
    parts = RunName(model=labels[0], dataset=labels[1], **fields)
    try:
        name = build_name(parts)
    except CBSDataError:
        assert labels[0] in ("math", "rpp") or (fields["clip_ratio"] or 1) < 1e-99
    else:
        assert parse_name(name) == parts


def test_parts_no_name_can_say_are_refused():
    with pytest.raises(CBSDataError, match="reads back as None"):
        build_name(RunName("p1", 0, 8))
    with pytest.raises(CBSDataError, match="no run name says"):
        build_name(RunName("p1", 8, 8, "olmo1b", "open_math"))
