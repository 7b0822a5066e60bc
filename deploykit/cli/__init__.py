"""The command line: one file per family of verbs. The composition root chooses the runtime here."""
