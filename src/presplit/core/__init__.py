"""The foundation: frozen values, protocols, errors and the one cost formula.

It imports no other room.
"""
