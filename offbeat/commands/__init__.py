"""What the command line can do: one function per command, all of them ``(arguments) -> exit code``."""
