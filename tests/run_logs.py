"""Runs as verl logs them, for tests of what happens to them afterwards."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cbsbayes.logs.attempts import Run
from cbsbayes.logs.run_log import Origin, RunLog

VAL = "val-core/openai/gsm8k/acc/mean@1"
COORDS = {"n_prompts": 128, "n_rollouts": 8, "total_batch": 1024.0, "seed": 1,
          "updates_per_step": 1}


def make_run(first, last, *, ident="a", name="cbs_p1_np128_nr8", created="", state="crashed",
             config=None, offset=0.0, every=25, source="wandb", seed=1):
    """Log like verl: validation before the first step, then every 25 steps and at the last."""
    steps = np.arange(first - 1, last + 1, dtype=float)
    values = 0.6 + steps / 10_000 + offset
    evaluated = (steps % every == 0) | (steps == last) | (steps == first - 1)
    history = pd.DataFrame(
        {VAL: np.where(evaluated, values, np.nan),
         "training/global_step": np.where(steps >= first, steps, np.nan),
         "critic/score/mean": np.where(steps >= first, values - 0.1, np.nan)},
        index=pd.Index(steps, name="step"))
    log = RunLog(id=ident, name=name, source=source, history=history, state=state,
                 created=created,
                 settings=(Origin("configuration", config or {"trainer": {"n": 1}}),))
    return Run(log, COORDS | {"seed": seed})
