"""`optictl compare`: accuracy and cost of each strategy, compared with the plain model.

questions (what to ask, which answers are right) and stats -> summary -> page; `run` sends requests.
"""
