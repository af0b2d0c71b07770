"""The command: one file per verb, the only place where names become objects on the user's word."""
