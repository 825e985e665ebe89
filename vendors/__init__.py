"""The list of code by others that the licensed path runs, and the program that brings it."""
