"""Reads damaged files: none may crash the program, hang it or raise an untyped error.

    python -m tests.mutants --format lmdb-append --count 100000 --seed 1 --jobs 2
    python -m tests.mutants --format lmdb-append --seed 1 --only 4711

A mutant is a function of (format, seed, index), so a failure is reproduced by its index alone.
"""
