"""metarec inside other libraries: a scorer for LensKit's pipelines and an estimator for scikit-learn."""
