"""verl's own trainer on a machine without an accelerator, at a size that two cores can train.

verl loads :mod:`training.cpu.plugin` itself (``VERL_PLATFORM=cpu``,
``VERL_USE_EXTERNAL_MODULES=training.cpu.plugin``); nothing of verl is changed. The tiny model,
its tokenizer and its verifiable task come from ``python -m training.cpu.assets``.
"""
