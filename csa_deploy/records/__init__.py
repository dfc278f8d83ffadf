"""What the stages leave behind, as types: ``records/<stage>.json`` of a workspace, read and written by one class each.

Imports nothing heavy, so that every reader can use it.
"""
