"""World models and what plans in them: RoboHorizon (arXiv 2501.06605) on features of pictures. No torch at import."""
