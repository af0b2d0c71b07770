"""The foundation: frozen values, protocols, errors and the one cost formula. Imports no other room."""
