"""Language models that negotiate: local ones, those behind an endpoint, and attacks by and on them."""
