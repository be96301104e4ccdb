"""One reader per kind of source; each gives `cbsbayes.sources.record.RunLog` records.

`cbsbayes.sources.detect.read_source` tells which reader a source needs.
"""
