"""`factory prove`: does a student learn from the data? A plan that is fixed first, carried out, and told whole.

`plan.py` says what is compared, `arms.py` makes the data of each arm, `stages.py` carries it out with the public
commands, `report.py` compares. The published plan and what came of it: PROOF.md.
"""
