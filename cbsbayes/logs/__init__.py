"""One reader per kind of source; each gives `cbsbayes.logs.run_log.RunLog` records.

`cbsbayes.logs.detect.read_source` tells which reader a source needs.
"""
