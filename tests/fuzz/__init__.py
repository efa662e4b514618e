"""What comes from outside, as bytes that somebody made up.

`targets` says what is fed with them and what has to hold; `test_corpus` feeds what was kept in ``corpus/``, and
``python -m tests.fuzz.hunt TARGET SECONDS`` looks for more with atheris, guided by what it reaches (`make fuzz`).
"""
