"""How good generated samples are: exact statistics per distribution, and their report.

Every statistic is a pure function of arrays. One rank scores one distribution
(`score.score_distribution`); the scores of all distributions, in one order, give the summary
(`summary.summarise`) and the page (`report.render`), so the figures are the same for every number
of ranks.
"""
