"""Pure decisions: no async, no I/O library, no clock, no random; these come in as arguments."""
