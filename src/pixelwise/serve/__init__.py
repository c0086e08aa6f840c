"""`pixelwise serve`: an HTTP service around predictors, and the page at its root.

`models` keeps the predictors, `scheduler` runs them with a bounded queue, `requests` reads and
limits what clients send, `answers` encodes results, `routes` and `kserve` are the two interfaces,
and `server` starts everything. Only `routes`, `kserve`, `middleware` and `server` know FastAPI.
"""
