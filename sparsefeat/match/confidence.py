"""How likely a pose is right: a logistic regression on a few statistics of its hypotheses.

The constants were fitted on pairs of synthetic rooms, whether they overlap or not, by
``python -m sparsefeat.match.calibrate DIR`` (DIR written by ``tools/make_data.py rooms --layout test``);
that command prints them anew. A pose counts as right as in registration recall.
"""
