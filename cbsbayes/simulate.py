"""Simulate a sweep with known truth: ``python -m cbsbayes.simulate -o FILE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cbsbayes._command import EXIT_OK, run_main

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_main("simulate", _run, argv)


def _run(options: argparse.Namespace) -> int:
    from cbsbayes.simulation.sweep import simulate_sweep
    from cbsbayes.sweep.files import write_sweep

    asked = {name: value for name, value in vars(options).items()
             if name not in ("output", "command")}
    ds = simulate_sweep(random_seed=asked.pop("seed"), **asked)
    write_sweep(ds, options.output)
    print(f"{ds.attrs['title']}: {ds.sizes['run']} runs, {ds.sizes['step']} evaluations each")
    names = [str(name) for name in ds.data_vars if ds[name].dims == ("threshold",)]
    table = ds[names].to_dataframe()[names].rename(columns=lambda name: name.removeprefix("true_"))
    print(table.to_string(float_format=lambda value: f"{value:.4g}"))
    print(f"wrote {options.output}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
