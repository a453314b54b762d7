"""What the server that forks engines loads, by importing this module: nobody else does."""

from importlib import import_module

from tokenyard_deployments.serving.engine.launch import LOADED, loading

with loading():
    for _name in LOADED:
        import_module(_name)
