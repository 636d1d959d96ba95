"""The judge: an image classifier over distributions, trained on samples the model never sees.

Its features measure diversity where guidance is chosen, and all that evaluation reports of images.
Leaves: the classifier. Upstream: the shards.
"""
