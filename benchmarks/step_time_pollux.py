"""The step-time model on measured step times: Pollux's CIFAR-10 and ImageNet tables.

python benchmarks/step_time_pollux.py FOLDER             # as far as a folder pollux_osdi21
python benchmarks/step_time_pollux.py FOLDER --placements 20

Tables of Qiao et al. 2021 (Pollux, OSDI): seconds per step by local batch size b (samples per GPU)
for 108 placements of 1 to 16 GPUs and 36 pairs of nodes and GPUs up to 64. Neither P nor G is
there; at fixed GPUs the floor is t_0 and the work c_b b, fitted to each placement by itself:

- between: every other batch size is left out and predicted,
- beyond: the batch sizes in the upper half are predicted from the lower half.

Then the rule behind several GPU counts, one GPU's time at B/K samples against K GPUs'.
Printed: the median and the 90 % quantile of |predicted/observed - 1|, the geometric mean of
predicted/observed, and the share of left-out steps inside the 90 % interval for a new run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cbsbayes.decisions.step_times import StepTimes, fit_step_times

APPS = ("cifar10", "imagenet")
PROB = 0.9


def measured(folder: Path, app: str) -> pd.DataFrame:
    """Return both tables of an app as one: place, nodes, gpus, local batch size, seconds."""
    placed = pd.read_csv(folder / app / "placements.csv", dtype={"placement": str})
    placed["place"] = placed["placement"]
    placed["nodes"] = placed["placement"].str.len()
    placed["gpus"] = [sum(map(int, text)) for text in placed["placement"]]
    scaled = pd.read_csv(folder / app / "scalability.csv")
    scaled = scaled.rename(columns={"num_nodes": "nodes", "num_replicas": "gpus"})
    scaled["place"] = [f"{n} nodes, {k} GPUs" for n, k in
                       zip(scaled["nodes"], scaled["gpus"], strict=True)]
    columns = ["place", "nodes", "gpus", "local_bsz", "step_time"]
    return pd.concat([placed[columns], scaled[columns]], ignore_index=True)


def fixed_terms(rows: pd.DataFrame) -> np.ndarray:
    """Return the terms of one placement: 1 and b."""
    return np.stack([np.ones(len(rows)), rows["local_bsz"]], axis=1)


def predict(model: StepTimes, rows: pd.DataFrame, terms: np.ndarray, label: str) -> pd.DataFrame:
    """Return predicted beside observed step times."""
    typical = model.population(terms)
    new = typical * np.exp(model.deviation(len(terms), np.random.default_rng(0)))
    low, high = np.quantile(new, [(1 - PROB) / 2, (1 + PROB) / 2], axis=0)
    predicted = np.median(typical, axis=0)
    seen = rows["step_time"].to_numpy()
    return pd.DataFrame({"what": label, "ratio": predicted / seen, "width": np.log(high / low),
                         "inside": (low <= seen) & (seen <= high)})


def by_placement(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield predictions of left-out batch sizes, each placement by itself."""
    for _, rows in table.groupby("place", sort=False):
        rows = rows.sort_values("local_bsz")
        order = np.arange(len(rows))
        for label, kept in (("between", order % 2 == 0), ("beyond", order < len(rows) / 2)):
            fitted, left = rows[kept], rows[~kept]
            if len(fitted) < 3:
                continue
            model = fit_step_times(fitted["step_time"].to_numpy(), fixed_terms(fitted),
                                   ("t_0", "c_b"))
            yield predict(model, left, fixed_terms(left), label)


def ideal(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield predictions of several GPUs from one, as if work divided perfectly."""
    one = table[table["gpus"] == 1]
    model = fit_step_times(one["step_time"].to_numpy(), fixed_terms(one), ("t_0", "c_b"))
    for label, low, high in (("2 to 4", 2, 4), ("5 to 16", 5, 16), ("17 to 64", 17, 64)):
        rows = table[table["gpus"].between(low, high)]
        yield predict(model, rows, fixed_terms(rows), f"perfect division, {label} GPUs from 1")


def summary(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return errors and coverage by kind of prediction."""
    table = pd.concat(parts)
    table["error"] = (table["ratio"] - 1).abs()
    grouped = table.groupby("what", sort=False)
    return pd.DataFrame({
        "steps": grouped.size(), "median error": grouped["error"].median().round(3),
        "90 % of errors below": grouped["error"].quantile(0.9).round(3),
        "predicted/observed": np.exp(grouped["ratio"].apply(lambda r: np.log(r).mean())).round(3),
        "inside 90 %": grouped["inside"].mean().round(3),
        "median log width": grouped["width"].median().round(3)})


def study(folder: Path, app: str, placements: int | None = None) -> pd.DataFrame:
    """Return the summary of one app."""
    table = measured(folder, app)
    places = table["place"].drop_duplicates()
    every = 1 if placements is None else max(1, len(places) // placements)
    some = table[table["place"].isin(places[::every])]
    return summary([*by_placement(some), *ideal(table)]).sort_index()


def main() -> None:
    """Print the errors of each app."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds cifar10 and imagenet")
    parser.add_argument("--placements", type=int,
                        help="fit about so many by themselves; default: all")
    options = parser.parse_args()
    for app in APPS:
        print(f"\n{app}")
        print(study(options.folder, app, options.placements).to_string())


if __name__ == "__main__":
    main()
