"""The one module that training wraps, and the factory of its parts."""
