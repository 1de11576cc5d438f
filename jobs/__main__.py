"""`python -m jobs` does the same as the command `factory`."""

from jobs.cli import command

command()
