"""The page to read: tables, sentences and figures on one self-contained sheet."""
