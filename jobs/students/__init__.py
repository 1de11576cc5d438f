"""Students: fine-tuning on a selection's tables. Last step of the flow; it reads tables, never a run's journal.

In the order of the flow: `recipe`, `prepare_base`, `rows`, `guards`, `packing`, `sft` and `dpo` (what the commands do),
`launching` and `nodes` (where), `training` (the process that trains); `memory` estimates, `DESIGN.md` says why.
`templates/` holds a chat template per family of students: `chatml_think.jinja` (Qwen) and `llama3_think.jinja` (Llama).
Each keeps every turn to the letter, the thinking of earlier turns too, adds no system text and no date, and marks the
assistant's content with its end token as what is learnt. They open no `<think>` themselves: the completion does.
"""
