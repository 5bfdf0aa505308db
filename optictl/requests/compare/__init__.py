"""`optictl compare`: what each strategy gets right and costs beside the plain model.

questions (what is asked, and which answers are right) and stats -> summary -> page; `run` asks.
"""
