r"""Training data in verl's parquet, from the raw files of the public datasets or from the hub.

::

    python -m data.prepare gsm8k   -o ~/data/gsm8k
    python -m data.prepare math500 -o ~/data/math500
    python -m data.prepare math    -o ~/data/math --validation ~/data/math500/test.parquet
    python -m data.prepare openmathinstruct2 --derived-from gsm8k -o ~/data/omi_gsm8k \
        --validation ~/data/gsm8k/test.parquet ~/data/math500/test.parquet

Each writes ``train.parquet`` and ``test.parquet`` (what the dataset has of them) and, last,
``prepare.json`` with what was counted. The same raw files give the same bytes.
"""
