"""The programs: links to train.py, evaluate.py and decide.py of a checkout, and the program of effects."""
