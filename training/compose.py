"""Compose a run's configuration as verl itself will: Hydra over verl's own configuration files.

Only Hydra and verl's YAML files are needed, neither torch nor Ray, so a misspelt key is found
before anything starts, and the resolved configuration can be laid beside the log, where the
analysis looks for it (verl's file logger does not hold it).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError

__all__ = ["compose", "config_text", "verl_folder"]


def verl_folder() -> Path:
    """Return verl's package folder without importing verl.

    Raises
    ------
    CBSDataError
        If verl or Hydra is not installed here.
    """
    specs = {name: importlib.util.find_spec(name) for name in ("verl", "hydra")}
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]
    if missing:
        raise CBSDataError(f"{' and '.join(missing)} not installed in this Python; runs need "
                           "verl 0.9.1 (training/README.md); --dry-run and listing do not")
    return Path(str(specs["verl"].origin)).parent  # type: ignore[union-attr]


def compose(overrides: Sequence[str]) -> Any:
    """Compose verl's configuration with a run's overrides.

    Parameters
    ----------
    overrides : sequence of str
        As `training.verl_command.overrides` gives them.

    Returns
    -------
    omegaconf.DictConfig

    Raises
    ------
    CBSDataError
        If verl's configuration does not know a key, or a value cannot be read.
    """
    folder = verl_folder() / "trainer" / "config"
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # hydra.* belongs to the launcher, not to the job; everything else must be known to verl.
    own = [text for text in overrides if not text.startswith("hydra.")]
    try:
        with initialize_config_dir(config_dir=str(folder), version_base=None):
            return hydra_compose(config_name="ppo_trainer", overrides=own)
    except (HydraException, OmegaConfBaseException) as error:
        problem = " ".join(str(error).split())
        raise CBSDataError(f"verl's configuration refuses the run: {problem}") from None


def config_text(overrides: Sequence[str], items: Mapping[str, int] | None = None) -> str:
    """Return the resolved configuration of a run as YAML.

    Parameters
    ----------
    overrides : sequence of str
        As for `compose`.
    items : mapping, optional
        Items of each validation set, added as ``cbs.validation_items``.

    Raises
    ------
    CBSDataError
        As `compose`.
    """
    from omegaconf import OmegaConf

    config = compose(overrides)
    if items:
        OmegaConf.update(config, "cbs.validation_items", dict(items), force_add=True)
    return OmegaConf.to_yaml(config, resolve=True)
