"""What verl loads, by its entry points or by ``VERL_USE_EXTERNAL_MODULES=cbsbayes.probe.plugin``.

``CBS_GRAD_NOISE_EVERY=20`` switches the probe on; without it nothing is imported or registered.
``EngineRegistry`` looks up (device, vendor) before the device alone, so an engine registered for
the vendor takes the place of verl's own. This module was not run on a GPU.
"""

from __future__ import annotations

from importlib import metadata

from cbsbayes.errors import CBSDataError
from cbsbayes.probe.plan import ProbeSettings

__all__ = ["VERL", "register"]

VERL = "0.9."  # releases whose engine is known


def register() -> None:
    """Put the probe into verl's FSDP engines on NVIDIA GPUs, if it is switched on.

    Raises
    ------
    SystemExit
        If the settings are wrong or verl is of another release: verl passes over the errors of a
        plug-in, and would train without the probe that was asked for.
    """
    try:
        if not ProbeSettings.from_environment().every:
            return
        version = metadata.version("verl")
        if not version.startswith(VERL):
            raise CBSDataError(f"the gradient-noise probe knows verl {VERL}x and this is "
                               f"{version}; install that release or unset CBS_GRAD_NOISE_EVERY")
    except CBSDataError as error:
        raise SystemExit(f"cbsbayes.probe: {error}") from None
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from cbsbayes.probe.engine import GradNoiseMixin

    class ProbedFSDPEngine(GradNoiseMixin, FSDPEngineWithLMHead):
        """verl's FSDP engine with the probe."""

    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda",
                            vendor="nvidia")(ProbedFSDPEngine)


register()
