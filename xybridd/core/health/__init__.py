"""What a doctor makes of a device: facts go in, findings come out, and nothing is looked at here.

Each file is one group of checks: the facts it judges by, its topics (what is checked, and why that matters), and
`judge`, which makes a finding of each. Who gathers the facts is `xybridd.cli.checks`, file by file under the same name.
"""
