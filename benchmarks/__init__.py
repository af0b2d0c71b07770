"""One program per question: ``python -m benchmarks`` lists them."""
