"""Systems whose specification is not known beforehand: a distribution of formulas instead of one."""
