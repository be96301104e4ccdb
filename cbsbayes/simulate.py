"""Simulate a sweep with known truth: ``python -m cbsbayes.simulate -o FILE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cbsbayes._command import EXIT_OK, run_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), "cbsbayes.simulate")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes.simulate",
        description="Simulate a sweep with known truth and write it as a sweep dataset.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("-o", "--output", required=True, metavar="FILE", help="the netCDF file to write")
    add("--design", default="all",
        help="p1, p2b, p2c joined by '+', all of them, or batch (one axis)")
    add("--seeds", type=int, default=1, help="replicates of every batch")
    add("--eval-every", type=int, default=25, help="updates between evaluations")
    add("--n-items", type=int, default=1319, help="validation items")
    add("--max-updates", type=int, default=600, help="length of every run")
    add("--sigma-run", type=float, default=0.08, help="sd of the run effect")
    add("--alpha", type=float, help="true exponent; None: the law's own")
    add("--law", default="two_axis", help="law of the truth")
    add("--item-set", action="store_true", help="one fixed validation set for all runs")
    add("--checkpoint-noise", type=float, default=0.0,
        help="sd of accuracy from checkpoint to checkpoint")
    add("--seed", dest="random_seed", type=int, default=0, help="random seed")
    return parser


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.simulation.sweep import simulate_sweep
    from cbsbayes.sweep.files import write_sweep

    asked = {name: value for name, value in vars(options).items() if name != "output"}
    ds = simulate_sweep(**asked)
    write_sweep(ds, options.output)
    print(f"{ds.attrs['title']}: {ds.sizes['run']} runs, {ds.sizes['step']} evaluations each")
    names = [str(name) for name in ds.data_vars if ds[name].dims == ("threshold",)]
    table = ds[names].to_dataframe()[names].rename(columns=lambda name: name.removeprefix("true_"))
    print(table.to_string(float_format=lambda value: f"{value:.4g}"))
    print(f"wrote {options.output}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
