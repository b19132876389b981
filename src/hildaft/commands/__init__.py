"""The commands: each is a function from the words after its name to an exit code."""
