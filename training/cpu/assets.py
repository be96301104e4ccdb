"""``python -m training.cpu.assets -o DIR``: the tiny model, its tokenizer and its task's data.

Writes ``tiny/`` (weights and tokenizer), ``train.parquet``, ``val.parquet`` and ``assets.json``;
the verifier is `training.cpu.task.compute_score`. A folder made with the same settings is kept as
it is.

python -m training.cpu.assets -o outputs/tiny
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cbsbayes._command import EXIT_OK, run_main
from cbsbayes.errors import CBSDataError

__all__ = ["AssetSettings", "build_assets", "main"]

_RECORD = "assets.json"


@dataclass(frozen=True)
class AssetSettings:
    """What the assets are made from.

    Attributes
    ----------
    steps : int
        Supervised updates of the base checkpoint.
    n_train, n_validation : int
        Items of the two splits.
    seed : int
        Seed of everything drawn.
    """

    steps: int
    n_train: int
    n_validation: int
    seed: int


def build_assets(folder: Path, settings: AssetSettings) -> dict[str, object]:
    """Make the assets, or find them made with the same settings.

    Parameters
    ----------
    folder : Path
        Where they belong; made whole or not at all.
    settings : AssetSettings
        What they are made from.

    Returns
    -------
    dict
        The record in ``assets.json``: settings, parameters, greedy accuracy of the checkpoint.

    Raises
    ------
    CBSDataError
        If the folder holds something else.
    """
    if folder.exists():
        return _existing(folder, settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        record = _make(draft, settings)
        draft.chmod(0o755)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return record


def _existing(folder: Path, settings: AssetSettings) -> dict[str, object]:
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        record = {}
    if record.get("settings") != asdict(settings):
        raise CBSDataError(f"{folder} exists and was not made with {settings}: "
                           f"its {_RECORD} says {record.get('settings')}; choose another folder "
                           "or remove this one")
    return record


def _make(folder: Path, settings: AssetSettings) -> dict[str, object]:
    import pandas as pd
    import torch

    from training.cpu.task import draw, rows
    from training.cpu.tiny_model import build_model, build_tokenizer, greedy_accuracy, pretrain

    torch.set_num_threads(1)
    train, validation = draw(settings.n_train, settings.n_validation, settings.seed)
    model, tokenizer = build_model(settings.seed), build_tokenizer()
    pretrain(model, tokenizer, train, steps=settings.steps, seed=settings.seed)
    model.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    pd.DataFrame(rows(train, "train")).to_parquet(folder / "train.parquet")
    pd.DataFrame(rows(validation, "test")).to_parquet(folder / "val.parquet")
    record: dict[str, object] = {
        "settings": asdict(settings), "parameters": sum(p.numel() for p in model.parameters()),
        "greedy_accuracy": greedy_accuracy(model.eval(), tokenizer, validation)}
    (folder / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("cpu.assets", _run, argv, package="training")


def _run(options: argparse.Namespace) -> int:
    settings = AssetSettings(options.steps, options.n_train, options.n_validation, options.seed)
    record = build_assets(options.output, settings)
    print(f"{options.output}: {record['parameters']:,} parameters, greedy accuracy "
          f"{record['greedy_accuracy']:.3f} on {settings.n_validation:,} validation items")
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
