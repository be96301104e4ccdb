"""From a log density to draws: mode, sampler, diagnostics, leave-one-run-out."""
