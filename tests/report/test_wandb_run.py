"""A fit logged to wandb by the genuine client, offline, and read back from what it wrote."""

from __future__ import annotations

import json

import pytest
import wandb
from fitted import run

from cbsbayes.fit import main
from cbsbayes.logs.wandb_offline import wandb_records


def test_answer_tables_figures_and_page_become_a_run(
    wandb_home, sweep_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    status = run(sweep_file, "-o", tmp_path / "fit", "--log-to", "wandb:team/batches", "--quiet")
    assert status == 0
    wandb.teardown()  # as at the end of a process: the client has written all by then
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records, lost = wandb_records(file.read_bytes())
    said = b"".join(records).decode("utf-8", "replace")
    assert lost == 0
    law = json.loads((tmp_path / "fit" / "fit.json").read_text())["law"]
    for expected in ("team", "batches", law, "Sampling checks passed"):
        assert expected in said
    media = file.parent / "files" / "media"
    tables = [json.loads(path.read_text()) for path in media.glob("table/**/*.table.json")]
    assert any("ci_lower" in table["columns"] for table in tables)
    assert list(media.glob("images/**/*.png"))
    (page,) = media.glob("html/**/*.html")
    assert "<svg" in page.read_text()


@pytest.mark.parametrize("project", ["team/batches", "wandb:batches", "wandb:a/b/c"])
def test_another_destination_is_refused_before_anything_is_fitted(project, tmp_path, capsys):
    assert main(["-o", str(tmp_path / "fit"), "--log-to", project]) == 1
    assert "valid: wandb:ENTITY/PROJECT" in capsys.readouterr().err
    assert not (tmp_path / "fit").exists()
