"""The rivals: how schedulers are usually built, and queues that carry schedules."""
