"""Run folders: one validated reader and one atomic writer, used by training, evaluation and the report.

A run folder may come from an untrusted source. Nothing in it is executed, only regular files inside it are read and
written, and every file is limited in size and validated before its contents are used.
"""
