"""Studies: a grid of pretraining runs that answers one question, with a verdict on a comparison named beforehand.

A study is a YAML file (`definition.py`). Its runs are ordinary run folders; a killed study is continued by the same
command. The studies that ship with the package are in `shipped/`.
"""
