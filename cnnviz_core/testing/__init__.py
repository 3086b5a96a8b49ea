"""The conformance kit: tests that the authors of backends, explainers and inspectors run.

`cnnviz_core.testing.backend` has the classes that a backend's tests inherit,
`cnnviz_core.testing.explainers` and `cnnviz_core.testing.inspectors` the checks for explainers and
inspectors, `cnnviz_core.testing.nets` the networks they are run on, and
`cnnviz_core.testing.reference` the NumPy model that everything is compared with.  Only the first
needs pytest.
"""
