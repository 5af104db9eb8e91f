"""Studies: a grid of pretraining runs that answers one question, with a verdict on a comparison named beforehand.

A study is a YAML file (`definition.py`). Its runs are ordinary run folders; a killed study is continued by the same
command. The studies that ship with the package are in `shipped/`.
"""

from selftaught.studies.definition import Study, parse_study
from selftaught.studies.library import list_studies, load_study
from selftaught.studies.study import Options, plan_study, run_study

__all__ = ["Options", "Study", "list_studies", "load_study", "parse_study", "plan_study", "run_study"]
