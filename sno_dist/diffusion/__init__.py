"""The theory of noising and denoising, free of networks: schedules, objective, solvers, density.

Everything here sees a score only as a function of (x, t).
"""
