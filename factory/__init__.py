"""From problems to tables: sources, prompts, teachers, dispatch, journal, store, actors, selection, tables."""
