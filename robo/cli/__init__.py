"""The commands: each file is one console script; it reads arguments, imports what it needs, and composes."""
