"""Our speed beside the usual recipes: each file is one command, both sides in one run, printed as ratios."""
