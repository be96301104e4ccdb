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

from cbsbayes._command import EXIT_OK, run_command
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

    steps: int = 1600
    n_train: int = 16384
    n_validation: int = 512
    seed: int = 0


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
    standard = AssetSettings()
    parser = argparse.ArgumentParser(
        prog="python -m training.cpu.assets",
        description="Make the tiny model, its tokenizer and its task's data for verl on CPU.",
        epilog="exit status: 0 made or already there; 1 the folder holds something else; 2 usage")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR",
                        help="folder of the assets")
    parser.add_argument("--steps", type=int, default=standard.steps,
                        help="supervised updates of the base checkpoint (%(default)s)")
    parser.add_argument("--n-train", type=int, default=standard.n_train,
                        help="training items (%(default)s)")
    parser.add_argument("--n-validation", type=int, default=standard.n_validation,
                        help="validation items (%(default)s)")
    parser.add_argument("--seed", type=int, default=standard.seed, help="seed (%(default)s)")
    options = parser.parse_args(argv)
    settings = AssetSettings(options.steps, options.n_train, options.n_validation, options.seed)
    return run_command(lambda: _run(options.output, settings), "training.cpu.assets")


def _run(folder: Path, settings: AssetSettings) -> int:
    record = build_assets(folder, settings)
    print(f"{folder}: {record['parameters']:,} parameters, greedy accuracy "
          f"{record['greedy_accuracy']:.3f} on {settings.n_validation:,} validation items")
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
