"""The meaning: what a job, a schedule, an execution and an outcome are.

Standard library only. Everything above may import this package; it imports nothing of ours.
"""
