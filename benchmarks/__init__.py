"""What cnnviz costs beside other libraries: ``python -m benchmarks``, in a checkout."""
