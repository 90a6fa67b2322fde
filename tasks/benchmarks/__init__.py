"""The six benchmarks of Meng & Fan, *Signal Temporal Logic Neural Predictive Control* (arXiv 2309.05131).

Dynamics, start distributions and geometry follow the paper's public code (github.com/mengyuest/stl_npc, commit
ae78a92), as facts; the specifications say in STL what the paper says in words. What that code leaves out is in
here: the last state of an episode counts, and success is measured on executed traces.
"""
