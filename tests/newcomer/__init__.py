"""A newcomer does what docs/deploy.md says, on a machine that this one pretends to be."""
