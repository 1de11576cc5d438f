"""Records that every stage shares: what a problem, a trace, a verdict, a run file and a manifest are.

Imports nothing of the other packages. Pure values: no files, no processes, no network.
"""
