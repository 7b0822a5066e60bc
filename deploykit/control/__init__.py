"""Where decisions become effects: the executor, the rollouts, the state of a project."""
